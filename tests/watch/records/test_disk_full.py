"""A disk that takes no more: judging goes on, records wait, and are written when there is room."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgevlm.watch.records import book as books
from edgevlm.watch.records.reading import records
from edgevlm.watch.records.verify import verify
from edgevlm.watch.status import Status
from tests.support.booked import add, book

LIMITED = """
import resource, signal, sys
from pathlib import Path
from edgevlm.watch.status import Status
from tests.support.booked import add, book
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
status = Status()
with book(Path(sys.argv[1]), status) as opened:
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_999, resource.RLIM_INFINITY))
    numbers = [add(opened, number).number for number in range(1, 41)]
    (condition,) = status.snapshot().conditions
    assert condition.bad and condition.name == "records" and "File too large" in condition.text, condition
    assert numbers == list(range(1, 41)) and 0 < opened.waiting < 40, opened.waiting
    size = Path(sys.argv[1]).stat().st_size
    assert Path(sys.argv[1]).read_bytes().endswith(b"}\\n"), "a half written line"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    opened.flush()
    assert opened.waiting == 0 and not status.snapshot().conditions
    assert status.snapshot().counters == {"records_written": 40}
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE on Windows")
def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """The kernel takes a part of a line, then refuses."""
    file = tmp_path / "records.jsonl"
    subprocess.run([sys.executable, "-c", LIMITED, file], check=True)
    (found,) = verify(file)
    assert (found.records, found.problems) == (40, [])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_full_disk(small_disk: Path) -> None:
    file, other = small_disk / "records.jsonl", small_disk / "other"
    status = Status()
    other.write_bytes(b"\0" * 40_000)
    with book(file, status, rotate_mb=0.008) as opened:
        for number in range(1, 61):
            add(opened, number)
        assert opened.waiting > 0
        assert "No space left on device" in status.snapshot().conditions[0].text
        assert not status.healthy
        other.unlink()
        add(opened, 61)
        assert opened.waiting == 0
        assert status.healthy
    (found,) = verify(file)
    assert (found.records, found.problems) == (61, [])


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_disk_that_is_full_at_the_start(small_disk: Path) -> None:
    file, other = small_disk / "records.jsonl", small_disk / "other"
    with book(file) as opened:
        add(opened, 1)
    with pytest.raises(OSError, match="No space"):
        other.write_bytes(b"\0" * 80_000)
    status = Status()
    with book(file, status) as opened:
        numbers = [add(opened, number).number for number in range(2, 20)]
        assert numbers == list(range(2, 20))
        assert not status.healthy
        other.unlink()
        opened.flush()
    (found,) = verify(file)
    assert (found.records, found.problems) == (19, [])


def test_what_waits_is_bounded_and_the_lost_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, status = tmp_path / "records.jsonl", Status()
    monkeypatch.setattr(books, "MOST_WAITING", 5)
    with book(file, status) as opened:
        add(opened, 1)
        with monkeypatch.context() as full:
            full.setattr(os, "write", _no_space)
            for number in range(2, 11):
                add(opened, number)
        assert opened.waiting == 5
        seen = status.snapshot()
        assert seen.counters["records_lost"] == 4
        assert {condition.name for condition in seen.conditions} == {"records", "records lost"}
        assert opened.number == 10
        opened.flush()
        seen = status.snapshot()
        assert [condition.name for condition in seen.conditions] == ["records lost"]
        assert "records from number 2 on were lost" in seen.conditions[0].text
        assert not seen.conditions[0].bad, "the disk is well again"
    assert [record.number for record in records(file)] == [1, 6, 7, 8, 9, 10]
    (problem,) = verify(file)[0].problems
    assert (problem.kind, problem.number) == ("missing", 2)
    assert "records 2 to 5 are missing" in problem.text


def _no_space(handle: int, data: bytes) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
