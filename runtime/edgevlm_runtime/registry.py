"""Things found by name: those that come with edgevlm, and for some kinds those of other installed packages.

    built_in = {"ort": "edgevlm_runtime.engines.ort:make_engine"}
    ENGINES = Registry("unknown engine", built_in, ProviderError, group="edgevlm.engines")
    engine = ENGINES.get("ort")(options)

Another package adds its own in its pyproject.toml, and is imported only when the name is asked for:

    [project.entry-points."edgevlm.engines"]
    ours = "our_package.engine:make_engine"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any

from edgevlm_runtime.errors import EdgeVLMError, reason


@dataclass(frozen=True, slots=True)
class Registry:
    """Names to what they stand for; iterating gives every name, and reads what all installed packages say of theirs."""

    unknown: str
    """How the error about a name that nobody has begins."""
    built_in: Mapping[str, Any]
    """Name to the thing itself or, as text, to where it is: "module", or "module:name in it". Always goes first."""
    error: type[EdgeVLMError]
    group: str = ""
    """The entry points of other packages; empty where there are none."""
    advice: str = ""
    """How that error ends."""

    def get(self, name: str) -> Any:
        """What `name` stands for. Raises `error`, naming those there are, or the package that cannot be loaded."""
        if name in self.built_in:
            found = self.built_in[name]
            if not isinstance(found, str):
                return found
            module, _, attribute = found.partition(":")
            return getattr(import_module(module), attribute) if attribute else import_module(module)
        if name not in self:
            advice = self.advice and f": {self.advice}"
            raise self.error(f"{self.unknown}: {' '.join(name.split())}: known are {', '.join(self)}{advice}")
        return added(self.group, name, self.error)

    def __contains__(self, name: str) -> bool:
        return name in self.built_in or bool(self.group and metadata.entry_points(group=self.group, name=name))

    def __iter__(self) -> Iterator[str]:
        others = {point.name for point in metadata.entry_points(group=self.group)} if self.group else set()
        return iter([*self.built_in, *sorted(others - set(self.built_in))])


def added(group: str, name: str, error: type[EdgeVLMError]) -> Any:
    """What another package registers as `name`; None where none does. Raises `error`, naming the package, when it
    cannot be imported, or when there are two."""
    points = metadata.entry_points(group=group, name=name)
    packages = sorted(point.dist.name if point.dist else point.value for point in points)
    if len(points) > 1:
        raise error(f"several packages have {name} for {group}: {', '.join(packages)}: uninstall all but one")
    try:
        return next(iter(points)).load() if points else None
    except Exception as failure:  # a stranger's package fails in ways of its own
        raise error(f"the package {packages[0]} cannot be loaded: {reason(failure)}: mend or uninstall it") from failure
