"""A folder of pictures, and the folders in it, by name; a row's id is the path within the folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from edgevlm.bulk.readers.base import Columns, Reader
from edgevlm.bulk.readers.places import filesystem, is_address
from edgevlm.bulk.rows import Row
from edgevlm_runtime.errors import EdgeVLMError

SUFFIXES = frozenset({".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""What counts as a picture."""


@dataclass(frozen=True, slots=True)
class Folder:
    """Pictures in a folder."""

    place: str

    def total(self) -> int:
        """Names are counted, nothing is opened."""
        return sum(1 for _ in self._names())

    def rows(self, first: int = 0) -> Iterator[Row]:
        """One for each picture."""
        head = self.place.rstrip("/") if is_address(self.place) else str(Path(self.place).absolute())
        for number, name in islice(enumerate(self._names()), first, None):
            shown = name.encode("utf-8", "replace").decode()  # a name may be no UTF-8
            yield Row(number, shown, shown, f"{head}/{name}")

    def _names(self) -> Iterator[str]:
        if is_address(self.place):
            system, path = filesystem(self.place)
            found = (str(PurePosixPath(one).relative_to(path)) for one in sorted(system.find(path)))
            return (name for name in found if _is_picture(name))
        return _walk(Path(self.place), "")


def make(place: str, columns: Columns) -> Reader:
    """Raises `EdgeVLMError` where no picture is there."""
    del columns
    folder = Folder(place)
    if next(folder.rows(), None) is None:
        raise EdgeVLMError(f"no pictures in {place}: known are {', '.join(sorted(SUFFIXES))}")
    return folder


def _walk(folder: Path, within: str) -> Iterator[str]:
    """Names in order, one folder at a time. Links to folders are not followed; hidden names are left out."""
    try:
        with os.scandir(folder) as found:
            entries = sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda one: one.name)
    except OSError as error:
        raise EdgeVLMError(f"cannot read {folder}: {error.strerror}") from error
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(folder / entry.name, f"{within}{entry.name}/")
        elif _is_picture(entry.name):
            yield f"{within}{entry.name}"


def _is_picture(name: str) -> bool:
    last = PurePosixPath(name)
    return last.suffix.lower() in SUFFIXES and not last.name.startswith(".")
