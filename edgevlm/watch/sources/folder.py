"""A folder that fills with pictures, as cameras and inspection machines leave them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgevlm.installed import installed
from edgevlm.watch.sources.base import Picture, Source, SourceLost
from edgevlm.watch.sources.reading.arrivals import Arrivals
from edgevlm.watch.sources.reading.file import picture_of
from edgevlm.watch.status import Status
from edgevlm_runtime.options import is_real, need

LOOK_MS = 50
"""How long a look for changes takes at most, and so how soon a file that is complete is noticed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Table of a plan: `[source]` with `kind = "folder"`."""

    path: Path
    pattern: str = "*"
    """Names of files to take: "*.png". Names that begin with a dot, or end in .part or .tmp, are never taken."""
    existing: bool = False
    """Take what is there already first, in the order of their names."""
    settle_s: float = 0.3
    """A file is complete when it has not grown or changed for this long."""
    poll: bool = False
    """Look again and again instead of being told: for network drives, which tell nobody."""

    def __post_init__(self) -> None:
        need(
            self.pattern != "" and "/" not in self.pattern, "pattern", self.pattern, 'a pattern for names, like "*.png"'
        )
        need(is_real(self.settle_s) and self.settle_s > 0, "settle_s", self.settle_s, "a number of seconds above 0")
        for name in ("existing", "poll"):
            need(isinstance(getattr(self, name), bool), name, getattr(self, name), "true or false")


def open_source(options: Options, status: Status) -> Source:
    """Raises `EdgeVLMError` where watchfiles is not installed."""
    with installed("camera"):
        import watchfiles  # noqa: F401 -- said here, rather than in the middle
    return Folder(options, status)


@dataclass(slots=True)
class Folder:
    """Every picture that appears in a folder, once it is complete."""

    options: Options
    status: Status
    live: bool = False
    _arrivals: Arrivals | None = field(default=None, init=False)
    """Outlives the loss of a network drive: what came meanwhile is new, what was given before is not."""

    def pictures(self, stop: threading.Event) -> Iterator[Picture]:
        """Raises `SourceLost` for a folder that is not there, or goes away."""
        import watchfiles

        options = self.options
        if not options.path.is_dir():
            raise SourceLost(f"no such folder: {options.path}")
        if self._arrivals is None:
            self._arrivals = Arrivals(options.path, options.pattern, options.settle_s, options.existing)
        arrivals, here = self._arrivals, _identity(options.path)
        told = watchfiles.watch(
            options.path, watch_filter=None, debounce=LOOK_MS, step=LOOK_MS, stop_event=stop, rust_timeout=LOOK_MS,
            yield_on_timeout=True, recursive=False, force_polling=options.poll or None, raise_interrupt=False,
            poll_delay_ms=2 * LOOK_MS, ignore_permission_denied=True,
        )  # fmt: skip
        listed = False
        try:
            for changes in told:
                if not listed:  # what came before anybody was told of changes
                    listed = True
                    arrivals.list_folder()
                arrivals.changed(Path(path) for _, path in changes)
                for file in arrivals.complete():
                    if stop.is_set():
                        return
                    found = picture_of(file, self.status)
                    if found is not None:
                        yield found
                if _identity(options.path) != here:
                    raise SourceLost(f"the folder {options.path} is gone")
        except OSError as error:
            raise SourceLost(f"the folder {options.path} cannot be watched: {error.strerror or error}") from None


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
