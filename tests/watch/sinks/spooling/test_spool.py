"""What waits on disk: whole after any end, in order, within its bound."""

from __future__ import annotations

import errno
import os
import random
import signal
from pathlib import Path

import pytest

from edgevlm.watch.sinks.spooling import position
from edgevlm.watch.sinks.spooling import spool as spools
from edgevlm.watch.sinks.spooling.spool import Spool
from edgevlm_runtime.errors import EdgeVLMError
from tests.support import spool_writer

LARGE = 1 << 20


def waiting(spool: Spool) -> list[tuple[int, bytes]]:
    """Everything that is not acknowledged, as a sender reads it."""
    found, number = [], spool.next
    while (entry := spool.read(number)) is not None:
        found.append(entry)
        number = entry[0] + 1
    return found


def test_entries_come_in_order_and_outlive_the_process(tmp_path):
    spool = Spool(tmp_path, LARGE)
    numbers = [spool.append(b"entry %d" % i) for i in range(200)]
    assert numbers == list(range(1, 201))
    spool.close()
    assert waiting(Spool(tmp_path, LARGE)) == [(i + 1, b"entry %d" % i) for i in range(200)]


def test_only_what_was_acknowledged_goes(tmp_path):
    spool = Spool(tmp_path, LARGE)
    for i in range(10):
        spool.append(b"%d" % i)
    for number in (1, 2, 5, 3):
        spool.acknowledge(number)
    assert [number for number, _ in waiting(spool)] == [4, 6, 7, 8, 9, 10]
    assert spool.waiting == 6
    spool.close()
    again = Spool(tmp_path, LARGE)
    assert [number for number, _ in waiting(again)] == [4, 5, 6, 7, 8, 9, 10]  # 5 again: better than never
    assert again.append(b"new") == 11


def test_numbers_go_on_when_nothing_waits(tmp_path):
    spool = Spool(tmp_path, LARGE)
    spool.acknowledge(spool.append(b"one"))
    spool.close()
    spool = Spool(tmp_path, LARGE)
    assert waiting(spool) == []
    assert spool.append(b"two") == 2
    assert waiting(spool) == [(2, b"two")]


def test_what_is_acknowledged_leaves_the_disk(tmp_path):
    spool = Spool(tmp_path, 64 * 1024)
    for _ in range(60):
        spool.acknowledge(spool.append(b"x" * 1000))
        spool.save()
        assert spool.size <= 8 * 1024
    assert spool.dropped == 0


def test_the_oldest_go_beyond_the_bound_and_are_counted(tmp_path):
    spool = Spool(tmp_path, 64 * 1024)
    for i in range(150):
        spool.append(b"%04d" % i + b"x" * 1000)
        assert sum(path.stat().st_size for path in tmp_path.glob("*.spool")) <= 64 * 1024
    kept = waiting(spool)
    assert [number for number, _ in kept] == list(range(151 - len(kept), 151))
    assert spool.dropped == 150 - len(kept)
    assert len(kept) >= 50
    spool.close()
    assert waiting(Spool(tmp_path, 64 * 1024)) == kept


def test_an_entry_larger_than_the_spool_is_refused(tmp_path):
    spool = Spool(tmp_path, 8192)
    spool.append(b"small")
    with pytest.raises(EdgeVLMError, match="larger than its spool"):
        spool.append(b"x" * 9000)
    assert spool.dropped == 1
    assert waiting(spool) == [(1, b"small")]


@pytest.mark.parametrize("cut", range(1, 22))
def test_a_line_cut_off_anywhere_is_skipped(tmp_path, cut):
    spool = Spool(tmp_path, LARGE)
    spool.append(b"whole")
    spool.append(b"cut off here")
    spool.close()
    (path,) = tmp_path.glob("*.spool")
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - cut)
    spool = Spool(tmp_path, LARGE)
    assert waiting(spool) == [(1, b"whole")]
    number = spool.append(b"next")
    assert waiting(spool) == [(1, b"whole"), (number, b"next")]
    spool.close()
    assert waiting(Spool(tmp_path, LARGE)) == [(1, b"whole"), (number, b"next")]


def test_a_damaged_line_is_skipped_and_holds_nothing_up(tmp_path):
    spool = Spool(tmp_path, LARGE)
    for i in range(3):
        spool.append(b"entry %d" % i)
    spool.close()
    (path,) = tmp_path.glob("*.spool")
    path.write_bytes(path.read_bytes().replace(b"entry 1", b"entry 7"))
    spool = Spool(tmp_path, LARGE)
    assert waiting(spool) == [(1, b"entry 0"), (3, b"entry 2")]
    spool.acknowledge(1)
    spool.acknowledge(3)
    assert spool.waiting == 0


def test_a_lost_position_sends_again_and_a_lost_file_holds_nothing_up(tmp_path):
    spool = Spool(tmp_path, SEGMENTED)
    for i in range(60):
        spool.append(b"%02d" % i + b"x" * 1000)
    for number in range(1, 11):
        spool.acknowledge(number)
    spool.close()
    (tmp_path / "position").write_bytes(b"no number")
    files = sorted(tmp_path.glob("*.spool"))
    files[4].unlink()
    spool = Spool(tmp_path, SEGMENTED)
    found = waiting(spool)
    assert found
    for number, _ in found:
        spool.acknowledge(number)
    assert spool.waiting == 0
    assert spool.append(b"next") == 61


SEGMENTED = 128 * 1024


def test_a_full_disk_is_said_and_leaves_what_is_there(tmp_path, monkeypatch):
    spool = Spool(tmp_path, LARGE)
    spool.append(b"before")

    def full(_handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(EdgeVLMError, match="No space left"):
            spool.append(b"never said to be written")
        assert waiting(spool) == [(1, b"before")]
    assert spool.append(b"after") == 2
    assert waiting(spool) == [(1, b"before"), (2, b"after")]
    spool.close()
    assert waiting(Spool(tmp_path, LARGE)) == [(1, b"before"), (2, b"after")]


def test_a_folder_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EdgeVLMError, match="cannot use the spool"):
        Spool(tmp_path / "file" / "spool", LARGE)


def test_kill_9_at_random_moments_loses_nothing_that_was_said_to_be_written(tmp_path):
    dice = random.Random(9)
    written: set[int] = set()
    acknowledged: set[int] = set()
    for _ in range(50):
        reading, writing = spool_writer.CONTEXT.Pipe(duplex=False)
        process = spool_writer.CONTEXT.Process(target=spool_writer.write, args=(tmp_path, writing))
        process.start()
        writing.close()
        with os.fdopen(os.dup(reading.fileno()), "rb") as said:
            lines = [said.readline() for _ in range(dice.randrange(1, 30))]
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            lines += said.readlines()
        process.join()
        reading.close()
        for line in lines:
            if line.endswith(b"\n"):
                (written if line[:1] == b"w" else acknowledged).add(int(line[2:]))
        spool = Spool(tmp_path, LARGE)
        found = waiting(spool)
        assert written - acknowledged <= {number for number, _ in found}
        assert all(payload.startswith(b"payload y") or payload == b"payload " for _, payload in found)
        assert spool.dropped == 0
        spool.close()
    assert len(written) > 400


def test_another_process_cannot_have_it_and_a_killed_one_lets_go(tmp_path):
    reading, writing = spool_writer.CONTEXT.Pipe(duplex=False)
    process = spool_writer.CONTEXT.Process(target=spool_writer.write, args=(tmp_path, writing))
    process.start()
    writing.close()
    with os.fdopen(os.dup(reading.fileno()), "rb") as said:
        said.readline()
        with pytest.raises(EdgeVLMError, match=r"cannot use the spool .*: another process uses it"):
            Spool(tmp_path, LARGE)
        process.kill()
        process.join()
    reading.close()
    Spool(tmp_path, LARGE).close()


def test_an_entry_is_one_line(tmp_path: Path):
    with pytest.raises(ValueError, match="one line"):
        Spool(tmp_path, LARGE).append(b"two\nlines")


def test_a_disk_that_it_has_filled_itself_becomes_free(tmp_path, monkeypatch):
    """There is no room for the new position before what was acknowledged is deleted."""
    spool = Spool(tmp_path, 1 << 20)
    for number in range(1, 200):
        spool.append(b"x" * 1000)
        spool.acknowledge(number)
    write = position.write_number

    def full(folder, name, number):
        if sum(file.stat().st_size for file in folder.iterdir()) > 100_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(folder, name, number)

    monkeypatch.setattr(spools, "write_number", full)
    spool.save()
    assert spool.size < 100_000
    spool.close()
    again = Spool(tmp_path, 1 << 20)
    assert (again.waiting, again.next) == (0, 200)
