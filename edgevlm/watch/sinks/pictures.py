"""Keeps pictures: of chosen verdicts, and of records that somebody marks, which are never deleted.

    [[sink]]
    kind = "pictures"
    folder = "kept"
    of = ["reject", "unsure", "marked"]
    mb = 2000

`edgevlm replay` asks kept pictures again, `edgevlm eval` takes those that were marked as a data set. With "marked" the
last pictures of other verdicts wait in `recent/` for somebody to say that they were judged wrong.

    kept/000048112-reject-0123456789abcdef.png
    kept/marked/...    kept/recent/...
"""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevlm.watch.records import files
from edgevlm.watch.records.marks import Mark, read_marks
from edgevlm.watch.records.pictures import DIGITS, digest_of, digests_of, is_before, name, number_of
from edgevlm.watch.rules.base import UNSURE
from edgevlm.watch.sinks.base import About, Delivery, Pending
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import is_real, need
from edgevlm_runtime.reading import why

MB = 1_000_000
ALL, MARKED = "all", "marked"
FORMATS = ("png", "jpeg")
BEST = 100
REMEMBERED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Raises `EdgeVLMError` for bad values."""

    folder: Path | None = None
    """Where pictures go; None is `pictures` in the folder of the watch."""
    of: tuple[str, ...] = (UNSURE, MARKED)
    """Verdicts whose pictures are kept; "all" keeps every one, "marked" those of records that people mark."""
    mb: float = 1000.0
    """Pictures are deleted, oldest first, above this many megabytes; those that were marked are not counted."""
    recent: int = 200
    """How many of the last pictures wait to be marked, where `of` has "marked"."""
    format: str = "png"
    """"png" keeps every pixel; "jpeg" takes a tenth of the space, and is not exactly what was judged."""
    quality: int = 92
    """Of JPEG, to 100."""
    before: int = 0
    """How many frames from before the one that was judged are kept with it, the nearest ones (`before_s` of the plan
    holds them)."""

    def __post_init__(self) -> None:
        need(len(self.of) > 0 and all(self.of), "of", list(self.of), 'verdicts, "marked", or "all"')
        need(is_real(self.mb) and self.mb > 0, "mb", self.mb, "a number of megabytes above 0")
        need(self.recent >= 1, "recent", self.recent, "a whole number of at least 1")
        need(self.format in FORMATS, "format", self.format, " or ".join(FORMATS))
        need(1 <= self.quality <= BEST, "quality", self.quality, f"from 1 to {BEST}")
        need(self.before >= 0, "before", self.before, "a whole number, 0 or more")


def make_sink(options: Options, about: About) -> Pictures:
    """Touches nothing yet. Raises `EdgeVLMError` for a verdict that there is not."""
    known = (*about.verdicts, MARKED, ALL)
    for verdict in options.of:
        need(verdict in known, "of", verdict, f"of these: {', '.join(known)}")
    return Pictures(options, about)


class Pictures:
    """A folder of pictures."""

    def __init__(self, options: Options, about: About) -> None:
        self._options = options
        self._about = about
        self._folder = options.folder or about.folder / "pictures"
        self._marks = None if about.records is None else files.marks(about.records)
        self._marks_seen: tuple[int, int] | None = None
        self._suffix = ".png" if options.format == "png" else ".jpg"
        self._bytes = 0
        self._given: dict[str, str] = {}
        """Digits of the last frames, by their record's id; older ones are looked up in the record file."""

    def start(self) -> None:
        """Make the folders, and see what is in them. Raises `EdgeVLMError`."""
        try:
            for folder in (self._folder, *((self._recent, self._marked) if self._for_marks else ())):
                folder.mkdir(parents=True, exist_ok=True)
            for file in (*self._folder.glob("*.partial"), *self._recent.glob("*.partial")):
                file.unlink(missing_ok=True)  # a kill left it
        except OSError as error:
            raise EdgeVLMError(f"pictures cannot be kept in {self._folder}: {why(error)}") from error
        self._bytes = sum(file.stat().st_size for file in self._kept(self._folder))
        self._take_marked()

    def pending(self, pending: Pending) -> None:
        """Nothing is kept before there is a verdict."""

    def deliver(self, delivery: Delivery) -> None:
        """A record without a frame has no picture. Raises `OSError` where the picture cannot be written, `EdgeVLMError`
        where it was let go before."""
        verdict, wanted = delivery.record.verdict, self._options.of
        self._given[delivery.record.id] = delivery.record.frame.sha256[:DIGITS]
        if len(self._given) > REMEMBERED:
            del self._given[next(iter(self._given))]
        if not delivery.record.frame.sequence:
            return  # no frame came
        if not delivery.has_picture:
            if self._for_marks or verdict in wanted or ALL in wanted:
                raise EdgeVLMError("a picture is not kept: too many waited for the disk to hold all in memory")
        elif verdict in wanted or ALL in wanted:
            self._bytes += self._save(delivery, self._folder)
            self._within_bound()
        elif self._for_marks:
            self._save(delivery, self._recent)
            waiting = self._kept(self._recent)
            numbers = sorted({number_of(file) or 0 for file in waiting})[: -self._options.recent]
            for file in waiting:
                if number_of(file) in numbers:
                    file.unlink(missing_ok=True)

    def beat(self, healthy: bool) -> None:
        """See whether somebody has marked a record."""
        self._take_marked()

    def close(self) -> None:
        """The last marks."""
        if self._folder.is_dir():
            self._take_marked()

    @property
    def _recent(self) -> Path:
        return self._folder / "recent"

    @property
    def _marked(self) -> Path:
        return self._folder / "marked"

    @property
    def _for_marks(self) -> bool:
        return MARKED in self._options.of and self._marks is not None

    def _save(self, delivery: Delivery, folder: Path) -> int:
        """Bytes written."""
        record, count = delivery.record, self._options.before
        frames = [delivery.frame, *reversed(delivery.before[-count:] if count else ())]
        written = 0
        for before, frame in enumerate(frames):
            file = folder / name(record.number, record.verdict, frame.digest, before=before, suffix=self._suffix)
            data = _encoded(frame.pixels, self._options)
            _write(file, data)
            written += len(data)
        self._about.status.count("pictures_kept")
        return written

    def _within_bound(self) -> None:
        if self._bytes <= self._options.mb * MB:
            return
        for file in self._kept(self._folder):
            if self._bytes <= self._options.mb * MB:
                return
            size = file.stat().st_size
            file.unlink(missing_ok=True)
            self._bytes -= size

    def _kept(self, folder: Path) -> list[Path]:
        """Pictures in this folder alone, oldest first."""
        found = [file for file in folder.glob(f"*{self._suffix}") if number_of(file) is not None]
        return sorted(found, key=lambda file: (number_of(file) or 0, file.name))

    def _take_marked(self) -> None:
        """Pictures of records with a mark go where they stay."""
        if self._marks is None or not self._for_marks:
            return
        with contextlib.suppress(FileNotFoundError):
            stat = self._marks.stat()
            seen = (stat.st_size, stat.st_mtime_ns)
            if seen == self._marks_seen:
                return
            for file in self._of_marks(list(read_marks(self._marks).values())):
                self._bytes -= file.stat().st_size if file.parent == self._folder else 0
                file.replace(self._marked / file.name)
            self._marks_seen = seen

    def _of_marks(self, marks: list[Mark]) -> list[Path]:
        """Pictures of the records that the marks name by their id: another chain may have had such
        numbers."""
        kept = [*self._kept(self._recent), *self._kept(self._folder)]
        numbers = {number_of(file) for file in kept}
        wanted = {mark.id for mark in marks if mark.number in numbers}
        digests = {one: self._given[one] for one in wanted if one in self._given}
        if self._about.records is not None and (missing := wanted - set(digests)):
            digests |= digests_of(self._about.records, missing)
        marked = {(mark.number, digests[mark.id]) for mark in marks if mark.id in digests}
        whole = {file for file in kept if (number_of(file), digest_of(file)) in marked}
        found = {number_of(file) for file in whole}
        return [file for file in kept if file in whole or (is_before(file) and number_of(file) in found)]


def _encoded(pixels: NDArray[np.uint8], options: Options) -> bytes:
    into = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if options.format == "png":
        picture.save(into, "PNG", compress_level=1)  # six times as fast as the default, a tenth larger
    else:
        picture.save(into, "JPEG", quality=options.quality, subsampling=0)
    return into.getvalue()


def _write(file: Path, data: bytes) -> None:
    """Whole or not at all."""
    partial = file.with_name(f"{file.name}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, file)  # noqa: PTH105
    except OSError:
        partial.unlink(missing_ok=True)
        raise
