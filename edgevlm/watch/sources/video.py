"""Video files: every picture of them, or as they pass by, like a camera's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgevlm.installed import installed
from edgevlm.watch.sources.base import Source
from edgevlm.watch.status import Status
from edgevlm_runtime.options import need


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Table of a plan: `[source]` with `kind = "video"`."""

    path: Path
    realtime: bool = False
    """Play it at its own speed, as a camera would send it: pictures that nobody has time for are dropped. Otherwise
    every picture is looked at, however long that takes."""
    loop: bool = False
    """Begin again at the end."""

    def __post_init__(self) -> None:
        for name in ("realtime", "loop"):
            need(isinstance(getattr(self, name), bool), name, getattr(self, name), "true or false")


def open_source(options: Options, status: Status) -> Source:
    """Raises `EdgeVLMError` where PyAV is not installed."""
    with installed("camera"):
        from edgevlm.watch.sources.reading.played import Played, Video

    path = options.path
    return Played(path, options.loop, status) if options.realtime else Video(path, options.loop, status)
