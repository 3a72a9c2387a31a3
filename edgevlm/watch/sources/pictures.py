"""Picture files, in the order in which they are named."""

from __future__ import annotations

import glob
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgevlm.watch.sources.base import Picture, Source
from edgevlm.watch.sources.reading.file import picture_of
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import need


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Table of a plan: `[source]` with `kind = "pictures"`."""

    files: tuple[Path, ...]
    """Files, and patterns like parts/*.png or parts/**/*.png, whose files come in the order of their names."""
    loop: bool = False
    """Begin again at the end."""

    def __post_init__(self) -> None:
        need(len(self.files) > 0, "files", self.files, "at least one file or pattern")
        need(isinstance(self.loop, bool), "loop", self.loop, "true or false")


def open_source(options: Options, status: Status) -> Source:
    """Needs nothing that is not always there."""
    return Pictures(options, status)


@dataclass(frozen=True, slots=True)
class Pictures:
    """Every file, once. Those that cannot be decoded are counted and left out."""

    options: Options
    status: Status
    live: bool = False

    def pictures(self, stop: threading.Event) -> Iterator[Picture]:
        """Raises `EdgeVLMError` for a file that is missing, and when none of all can be decoded."""
        files = [file for named in self.options.files for file in _files(named)]
        while True:
            given = 0
            for file in files:
                if stop.is_set():
                    return
                found = picture_of(file, self.status)
                if found is not None:
                    given += 1
                    yield found
            if not given:
                raise EdgeVLMError(f"none of {len(files)} files can be decoded as a picture, the first is {files[0]}")
            if not self.options.loop:
                return


def _files(named: Path) -> list[Path]:
    if named.is_file():
        return [named]
    if not glob.has_magic(str(named)):
        raise EdgeVLMError(f"no such picture file: {named}")
    found = sorted(Path(one) for one in glob.glob(str(named), recursive=True))  # noqa: PTH207 -- it may be absolute
    files = [one for one in found if one.is_file()]
    if not files:
        raise EdgeVLMError(f"no file is called {named}")
    return files
