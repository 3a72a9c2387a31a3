"""Kept pictures: of which verdicts, every pixel, within a bound, and those that people mark for good."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.records import files, pictures
from edgevlm.watch.records.book import Book
from edgevlm.watch.records.marks import Marks, about
from edgevlm.watch.records.record import Record
from edgevlm.watch.sinks.base import About, Delivery
from edgevlm.watch.sinks.pictures import Options, Pictures, make_sink
from edgevlm.watch.status import Status
from edgevlm.watch.triggers.base import Firing
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.booked import answer, book

NOISE = np.random.default_rng(3)


def noisy(number: int, size: tuple[int, int] = (40, 30)) -> Frame:
    width, height = size
    return Frame(number, 0.0, 0.0, NOISE.integers(0, 256, (height, width, 3), dtype=np.uint8))


class Bench:
    """A sink at work, with a book whose records it is given."""

    def __init__(self, folder: Path, opened: Book, **options: object) -> None:
        self.folder = folder / "kept"
        self.book = opened
        told = About("w", ("reject", "unsure", "ok"), ("scratch",), folder, Status(), records=folder / "records.jsonl")
        self.marks = Marks(files.marks(folder / "records.jsonl"))
        self.sink: Pictures = make_sink(Options(folder=self.folder, **options), told)  # type: ignore[arg-type]
        self.sink.start()

    def give(self, verdict: str, frame: Frame | None = None, before: tuple[Frame, ...] = ()) -> Record:
        seen = frame or noisy(self.book.number + 1)
        record = self.book.add(seen, Firing("every"), verdict, (answer(verdict),))
        self.sink.deliver(Delivery(record, seen, before))
        return record

    def names(self, folder: str = "") -> list[str]:
        return sorted(file.name for file in (self.folder / folder).iterdir() if file.is_file())

    def numbers(self, folder: str = "") -> list[int]:
        return [int(name[:9]) for name in self.names(folder)]


@pytest.fixture
def opened(tmp_path: Path):
    with book(tmp_path / "records.jsonl") as one:
        yield one


def test_every_pixel_of_the_verdicts_that_were_chosen(tmp_path: Path, opened: Book) -> None:
    bench = Bench(tmp_path, opened, of=("reject", "unsure"))
    frame = noisy(1)
    record = bench.give("reject", frame)
    bench.give("ok")
    bench.give("unsure")
    assert bench.names()[0] == f"000000001-reject-{frame.digest[:16]}.png"
    assert bench.numbers() == [1, 3]
    assert np.array_equal(np.asarray(Image.open(bench.folder / bench.names()[0])), frame.pixels)
    found = pictures.find([tmp_path]).frame(record)
    assert found.exact
    assert found.frame.digest == record.frame.sha256


def test_a_picture_that_was_let_go_is_no_picture(tmp_path: Path, opened: Book) -> None:
    """Of a sink that is far behind: the record is there, its pixels are not."""
    bench = Bench(tmp_path, opened, of=("reject",))
    frame = noisy(1)
    for verdict in ("reject", "ok"):
        record = opened.add(frame, Firing("every"), verdict, (answer(verdict),))
        gone = Delivery(record, frame).without_picture()
        if verdict == "ok":
            bench.sink.deliver(gone)
        else:
            with pytest.raises(EdgeVLMError, match="a picture is not kept: too many waited"):
                bench.sink.deliver(gone)
    assert bench.names() == []


def test_all_of_them(tmp_path: Path, opened: Book) -> None:
    bench = Bench(tmp_path, opened, of=("all",))
    for verdict in ("ok", "reject", "unsure"):
        bench.give(verdict)
    assert bench.numbers() == [1, 2, 3]


def test_a_bound_on_disk(tmp_path: Path, opened: Book) -> None:
    bench = Bench(tmp_path, opened, of=("all",), mb=0.02)  # a picture has about 3.7 kB
    for _ in range(12):
        bench.give("ok")
    sizes = [file.stat().st_size for file in bench.folder.iterdir()]
    assert 12_000 < sum(sizes) <= 20_000
    assert bench.numbers() == list(range(13 - len(sizes), 13)), "the oldest went"
    again = Bench(tmp_path, opened, of=("all",), mb=0.02)
    again.give("ok")
    assert again.numbers()[-1] == 13
    assert sum(file.stat().st_size for file in bench.folder.iterdir()) <= 20_000, "after a restart too"


def test_jpeg_says_that_it_is_not_exact(tmp_path: Path, opened: Book) -> None:
    bench = Bench(tmp_path, opened, of=("all",), format="jpeg", quality=90)
    record = bench.give("ok")
    assert bench.names()[0].endswith(".jpg")
    found = pictures.find([tmp_path]).frame(record)
    assert not found.exact
    assert found.frame.size == (40, 30)


def test_frames_from_before(tmp_path: Path, opened: Book) -> None:
    bench = Bench(tmp_path, opened, of=("reject",), before=2)
    before = tuple(noisy(number) for number in range(1, 5))
    frame = noisy(5)
    record = bench.give("reject", frame, before)
    names = bench.names()
    assert len(names) == 3
    assert f"000000001-reject-{before[3].digest[:16]}-before1.png" in names
    assert f"000000001-reject-{before[2].digest[:16]}-before2.png" in names
    assert pictures.find([bench.folder]).frame(record).frame.digest == frame.digest


def test_marked_pictures_stay_whatever_the_verdict(tmp_path: Path, opened: Book) -> None:
    bench = Bench(tmp_path, opened, of=("reject", "marked"), recent=3, mb=0.012)
    first = bench.give("ok")
    second = bench.give("reject")
    assert (bench.numbers("recent"), bench.numbers()) == ([1], [2])
    for record in (first, second):
        bench.marks.add(about(record, "unsure"))
    bench.sink.beat(True)
    assert (bench.numbers("recent"), bench.numbers(), bench.numbers("marked")) == ([], [], [1, 2])
    for _ in range(5):
        bench.give("ok")
        bench.give("reject")
    assert bench.numbers("recent") == [7, 9, 11], "the last three"
    assert bench.numbers("marked") == [1, 2], "out of the bound's reach"
    late = bench.give("ok")
    bench.marks.add(about(late, "ok"))
    bench.sink.close()
    assert bench.numbers("marked") == [1, 2, late.number]
    kept = pictures.find([tmp_path])
    assert all(kept.frame(record).exact for record in (first, second, late))


def test_marks_made_while_it_was_down(tmp_path: Path, opened: Book) -> None:
    bench = Bench(tmp_path, opened, of=("marked",))
    record = bench.give("ok")
    bench.sink.close()
    bench.marks.add(about(record, "reject"))
    assert Bench(tmp_path, opened, of=("marked",)).numbers("marked") == [1]


def test_a_mark_of_another_chain_takes_no_picture(tmp_path: Path, opened: Book) -> None:
    """Its record has the same number."""
    bench = Bench(tmp_path, opened, of=("marked",), before=1)
    record = bench.give("ok", before=(noisy(9),))
    bench.marks.add(about(replace(record, id="another"), "reject"))
    bench.sink.beat(True)
    assert (bench.numbers("recent"), bench.numbers("marked")) == ([1, 1], [])
    bench.marks.add(about(record, "reject"))
    bench.sink.beat(True)
    assert (bench.numbers("recent"), bench.numbers("marked")) == ([], [1, 1])


def test_a_picture_that_was_altered_is_not_taken(tmp_path: Path, opened: Book) -> None:
    bench = Bench(tmp_path, opened, of=("all",))
    frame = noisy(1)
    record = bench.give("ok", frame)
    (name,) = bench.names()
    other = frame.pixels.copy()
    other[0, 0, 0] ^= 1
    Image.fromarray(other).save(bench.folder / name)
    with pytest.raises(pictures.NotKept, match="has not the pixels of its frame") as refused:
        pictures.find([tmp_path]).frame(record)
    assert refused.value.reason == "the picture was altered"
    (bench.folder / name).write_bytes(b"\x89PNG")
    with pytest.raises(pictures.NotKept, match="record 1: "):
        pictures.find([tmp_path]).frame(record)
    (bench.folder / name).unlink()
    with pytest.raises(pictures.NotKept, match="no picture of it was kept"):
        pictures.find([tmp_path]).frame(record)


def test_a_picture_of_a_watched_folder_is_found_by_its_name(tmp_path: Path, opened: Book) -> None:
    frame = noisy(1)
    watched = tmp_path / "in"
    watched.mkdir()
    Image.fromarray(frame.pixels).save(watched / "part-1.png")
    seen = Frame(1, 0.0, 0.0, frame.pixels, "part-1.png")
    record = opened.add(seen, Firing("file"), "ok")
    assert pictures.find([watched]).frame(record).exact
    Image.fromarray(noisy(2).pixels).save(watched / "part-1.png")
    with pytest.raises(pictures.NotKept, match="has not the pixels"):
        pictures.find([watched]).frame(record)


def test_odd_verdicts_make_sound_names(tmp_path: Path, opened: Book) -> None:
    assert pictures.name(1, "../not ok/", "a" * 64) == f"000000001-.._not_ok_-{'a' * 16}.png"
    assert pictures.number_of(Path(pictures.name(7, "../a b", "f" * 64, before=3))) == 7


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"format": "gif"}, "bad value for format: 'gif': it must be png or jpeg"),
        ({"mb": 0}, "bad value for mb"),
        ({"of": ()}, "bad value for of"),
        ({"recent": 0}, "bad value for recent"),
        ({"quality": 101}, "bad value for quality"),
        ({"before": -1}, "bad value for before"),
    ],
)
def test_bad_options(options: dict[str, object], line: str) -> None:
    with pytest.raises(EdgeVLMError, match=line):
        Options(**options)  # type: ignore[arg-type]


def test_an_unknown_verdict(tmp_path: Path, opened: Book) -> None:
    with pytest.raises(
        EdgeVLMError, match="bad value for of: 'bad': it must be of these: reject, unsure, ok, marked, all"
    ):
        Bench(tmp_path, opened, of=("bad",))


def test_a_folder_that_cannot_be_made(tmp_path: Path, opened: Book) -> None:
    (tmp_path / "kept").write_text("")
    with pytest.raises(EdgeVLMError, match="pictures cannot be kept in"):
        Bench(tmp_path, opened, of=("all",))
