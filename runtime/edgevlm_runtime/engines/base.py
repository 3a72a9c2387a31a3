"""What an engine is given and gives back: which graph to load, a graph that runs, and bindings that run without copies.

An engine is a file in this folder with a function `make_engine(options) -> Engine`; its name is the registry key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.bundle.manifest import GraphInfo
from edgevlm_runtime.errors import ProviderError

Array = NDArray[Any]
AS_ASKED = "as asked"
"""`Engine.reason` of one that the caller named."""


@dataclass(frozen=True, slots=True)
class GraphRequest:
    """One graph of an opened bundle that an engine is asked to load, and how it will be run, where that is known.

    The hints change no result; an engine may spend memory or time on them, or ignore them.
    """

    bundle: Bundle
    name: str
    """As in `Manifest.graphs`."""
    repeated: bool = False
    """Runs follow each other closely, as decoding steps do: threads may wait busily, a run be recorded and replayed."""
    attention_scores: int | None = None
    """Scores that a chunk of a prompt computes over the whole KV cache (`DecoderInfo.attention_scores`)."""

    @property
    def path(self) -> Path:
        """Where its ONNX file lies. Raises `BundleError` when the manifest has no digest of it."""
        return self.bundle.file(self.info.file)

    @property
    def info(self) -> GraphInfo:
        """What the manifest says of it."""
        return self.bundle.manifest.graphs[self.name]


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a graph; `shape` holds integers for fixed and names or None for dynamic dimensions."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]


class Cache(Protocol):
    """A tensor that stays where the graph runs and is input and output at once: one layer's keys or values."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def address(self) -> int:
        """Where its first byte lies."""
        ...

    def host(self) -> Array:
        """Its contents for reading: the memory itself where that is on the host, else a copy."""
        ...

    def write(self, rows: Array) -> None:
        """Put `rows` [1, kv_heads, n, head_dim] into its first n positions; those after them may become zero."""
        ...


class Binding(Protocol):
    """Buffers tied to a graph's inputs and outputs. Contents may change between runs, addresses may not.

    Not safe for two threads at once; a graph may have any number of bindings, in different threads.
    """

    def bind_input(self, name: str, array: Array) -> None:
        """Read input `name` from `array` (C-contiguous, kept alive by the binding)."""
        ...

    def bind_output(self, name: str, array: Array) -> None:
        """Write output `name` into `array` (C-contiguous, kept alive by the binding)."""
        ...

    def bind_cache(self, input_name: str, output_name: str, cache: Cache) -> None:
        """Tie an input and an output to one buffer, so that the graph updates it in place."""
        ...

    def run(self) -> None:
        """Run the graph over the bound buffers. Raises `EdgeVLMError` when the engine fails."""
        ...


class Graph(Protocol):
    """One loaded graph. Any number of threads may run it."""

    @property
    def inputs(self) -> Mapping[str, Port]: ...

    @property
    def outputs(self) -> Mapping[str, Port]: ...

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; outputs are fresh arrays by name. Raises `EdgeVLMError` when the engine fails."""
        ...

    def binding(self) -> Binding:
        """A new binding with nothing bound."""
        ...

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> Cache:
        """Zeroed memory for `Binding.bind_cache`. Raises `EdgeVLMError` when there is not enough."""
        ...


class Engine(Protocol):
    """Loads graphs.

    One that computes in several ways may say so: `variants`, further words for `--engine` that hold on this machine
    ("openvino:bf16"). `edgevlm tune` compares them all. One that loads graphs whose weights are made meanwhile
    (`GraphInfo.widened`) has `widens` true; with others, such a graph is left out.
    """

    @property
    def identity(self) -> str:
        """What of the engine decides a graph's results: library, version, execution provider."""
        ...

    @property
    def reason(self) -> str:
        """Why it is this one: `AS_ASKED`, or how "auto" decided."""
        ...

    @property
    def automatic(self) -> bool:
        """Whether "auto" decided that it is this one."""
        ...

    def fallback(self, error: ProviderError) -> Engine | None:
        """The engine to take where this one cannot load a bundle's graphs and says `error`; None where there is none
        because this one was asked for."""
        ...

    def load(self, request: GraphRequest) -> Graph:
        """Load one graph.

        Raises `BundleError` when the file is no graph this engine can load, `ProviderError` when the execution
        provider asked for is not there.
        """
        ...
