"""Kept pictures: what their files are called, and how the one of a record is found again.

    000048112-reject-0123456789abcdef.png             number, verdict, the first 16 digits of the frame's digest
    000048112-reject-0123456789abcdef-before2.png     the second last frame before it

A PNG has the pixels that were judged, and its digest says so. A JPEG has nearly the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.records import files
from edgevlm.watch.records.reading import lines
from edgevlm.watch.records.record import FrameInfo, Record
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.images.load import load_image

DIGITS = 16
"""Of the digest, in a file's name."""
_NAME = re.compile(
    r"(?P<number>\d{9,})-(?P<verdict>[^/]*)-(?P<digest>[0-9a-f]{16})(?P<before>-before\d+)?\.(?:png|jpg)"
)
_UNSAFE = re.compile(r"[^A-Za-z0-9_.]+")
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
"""Endings of files that are one picture each."""


class NotKept(EdgeVLMError):
    """The frame of a record cannot be had; `reason` is short enough to count by."""

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class KeptFrame:
    """A frame read from its file."""

    frame: Frame
    file: Path
    exact: bool
    """Whether the pixels are those that were judged; else they were kept as JPEG."""


@dataclass(slots=True)
class Kept:
    """Pictures in some folders, by what their names say."""

    by_digest: dict[str, Path] = field(default_factory=dict)
    by_name: dict[str, Path] = field(default_factory=dict)
    """Pictures that somebody else keeps: a folder that was watched."""

    def has(self, frame: FrameInfo) -> bool:
        """Whether a file may be its picture, without opening it."""
        return frame.sha256[:DIGITS] in self.by_digest or (bool(frame.name) and Path(frame.name).name in self.by_name)

    def frame(self, record: Record) -> KeptFrame:
        """The frame of a record. Raises `NotKept`: no picture, one that cannot be read, or another's pixels."""
        wanted = record.frame
        named = self.by_digest.get(wanted.sha256[:DIGITS])
        file = named or (self.by_name.get(Path(wanted.name).name) if wanted.name else None)
        if file is None:
            raise NotKept("no picture was kept", f"record {record.number}: no picture of it was kept")
        try:
            pixels = np.asarray(load_image(file))
        except EdgeVLMError as error:
            raise NotKept("the picture cannot be read", f"record {record.number}: {error}") from error
        frame = Frame(wanted.sequence, wanted.captured_at, 0.0, pixels, wanted.name)
        exact = frame.digest == wanted.sha256
        if not exact and (named is None or file.suffix != ".jpg" or frame.size != (wanted.width, wanted.height)):
            raise NotKept("the picture was altered", f"record {record.number}: {file} has not the pixels of its frame")
        return KeptFrame(frame, file, exact)


def name(number: int, verdict: str, digest: str, *, before: int = 0, suffix: str = ".png") -> str:
    """A file's name. `before`: how many frames before the one that was judged; 0 for itself."""
    earlier = f"-before{before}" if before else ""
    return f"{number:09d}-{_UNSAFE.sub('_', verdict) or '_'}-{digest[:DIGITS]}{earlier}{suffix}"


def number_of(file: Path) -> int | None:
    """The number of the record whose picture this is, or one from before it; None for other files."""
    found = _NAME.fullmatch(file.name)
    return None if found is None else int(found["number"])


def digest_of(file: Path) -> str:
    """The first digits of the digest of the frame in this file; empty for other files."""
    found = _NAME.fullmatch(file.name)
    return "" if found is None else found["digest"]


def is_before(file: Path) -> bool:
    """Whether it is a picture from before the one that was judged."""
    found = _NAME.fullmatch(file.name)
    return found is not None and found["before"] is not None


def digests_of(records: Path, ids: set[str]) -> dict[str, str]:
    """The first digits of the frames of these records, by id, as far as the files of `records` have them."""
    found: dict[str, str] = {}
    for file in files.chain(records):
        with suppress(EdgeVLMError):  # whoever writes records says so
            for line in lines(file):
                if any(one.encode() in line.data for one in ids):
                    record = line.record()
                    found |= {record.id: record.frame.sha256[:DIGITS]} if record.id in ids else {}
    return found


def find(folders: Iterable[Path]) -> Kept:
    """Every picture in these folders and those below. PNGs go before JPEGs. Folders that are not there are skipped."""
    kept = Kept()
    for folder in folders:
        for file in sorted(folder.rglob("*")) if folder.is_dir() else ():
            found = _NAME.fullmatch(file.name)
            if found is not None and not found["before"]:
                if file.suffix == ".png" or found["digest"] not in kept.by_digest:
                    kept.by_digest[found["digest"]] = file
            elif found is None and file.suffix.lower() in PICTURES and file.is_file():
                kept.by_name.setdefault(file.name, file)
    return kept
