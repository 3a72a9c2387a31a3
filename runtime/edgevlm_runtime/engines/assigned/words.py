"""Engines in words, as `RuntimeOptions.engine` and `--engine` have them.

    ort                                                     every graph
    vision_encoder=openvino,projector=openvino              these two; the others stay with ort
    tensorrt,projector=ort                                  all but one
    vision_encoder=openvino:bf16                            with a word for the engine itself

An engine alone is its `spec`: its registered name and, behind colons, words that it understands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgevlm_runtime.errors import EdgeVLMError, ProviderError

DEFAULT = "ort"
FILLED_BY = {"prefill": "decoder"}
"""Graphs that work on another one's KV cache, and so run where that does unless they are named."""
ON_PROCESSOR = ("ort", "openvino")
_DEVICES = (":gpu", ":npu")


@dataclass(frozen=True, slots=True)
class Assignment:
    """An engine for each graph."""

    rest: str = DEFAULT
    """For graphs that have none of their own."""
    named: Mapping[str, str] = field(default_factory=dict)
    """By graph."""

    @classmethod
    def parse(cls, text: str | None) -> Assignment:
        """What the words say; None is the default. Raises `EdgeVLMError` for what says nothing, or two things."""
        rest, named = None, dict[str, str]()
        for part in [] if text is None else text.split(","):
            graph, assigned, spec = (word.strip() for word in part.partition("="))
            if not graph or (assigned and not spec):
                raise EdgeVLMError(f"bad value for engine: {text!r}: it must be NAME, or GRAPH=NAME,GRAPH=NAME")
            if graph in named or (not assigned and rest is not None):
                raise EdgeVLMError(f"bad value for engine: {text!r}: two engines for {graph if assigned else 'all'}")
            if assigned:
                named[graph] = spec
            else:
                rest = graph
        return cls(rest or DEFAULT, named)

    def of(self, graph: str) -> str:
        """The engine of a graph."""
        behind = FILLED_BY.get(graph, graph)
        return self.named.get(graph) or self.named.get(behind) or self.rest

    def check(self, graphs: Sequence[str]) -> None:
        """Raise `EdgeVLMError` for a graph that the bundle does not have."""
        for name in self.named:
            if name not in graphs:
                raise EdgeVLMError(f"--engine {name}=...: no such graph: this bundle has {', '.join(graphs)}")

    @property
    def specs(self) -> tuple[str, ...]:
        """Every engine that is named, once; the rest's first."""
        return tuple(dict.fromkeys((self.rest, *self.named.values())))

    def __str__(self) -> str:
        own = [f"{graph}={spec}" for graph, spec in self.named.items()]
        return ",".join([self.rest, *own] if self.rest != DEFAULT or not own else own)


def name_of(spec: str) -> str:
    """The registered name in an engine's spec."""
    return spec.partition(":")[0]


def words_of(spec: str) -> tuple[str, ...]:
    """What follows the name."""
    return tuple(spec.split(":")[1:])


def no_words(spec: str | None) -> None:
    """For engines that understand none. Raises `ProviderError`."""
    if spec is not None and words_of(spec):
        raise ProviderError(f"the engine {name_of(spec)} takes nothing behind its name: {spec}")


def on_processor(engine: str | None) -> bool:
    """Whether every graph runs on the processor, as far as the words tell."""
    specs = Assignment.parse(engine).specs
    return all(name_of(spec) in ON_PROCESSOR and not any(part in spec.lower() for part in _DEVICES) for spec in specs)
