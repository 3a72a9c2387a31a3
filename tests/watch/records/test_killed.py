"""kill -9 at random moments, fifty times: what is on disk always parses and chains, and the next number follows."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from edgevlm.watch.records import files
from edgevlm.watch.records.reading import chains, records
from edgevlm.watch.records.verify import verify
from tests.support.booked import write_until_killed

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["edgevlm.watch.records.book", "edgevlm.watch.plan.plan", "edgevlm.watch.triggers.base"])
KILLS = 50
PATIENCE_S = 60.0


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_kill_at_any_moment(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    chance, last = random.Random(7), 0
    for _ in range(KILLS):
        here, there = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=write_until_killed, args=(file, there))
        process.start()
        there.close()
        assert here.poll(PATIENCE_S)
        first = here.recv()
        time.sleep(chance.uniform(0, 0.03))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        told = first
        try:
            while True:
                told = here.recv()
        except EOFError:
            here.close()
        assert first == last + 1, "the next number follows"
        (found,) = verify(file)
        assert (found.problems, found.first) == ([], 1)
        assert found.last is not None
        assert found.last >= told, "what was told is on disk"
        last = found.last
    (chain,) = chains(file)
    assert len(chain) > 2, "kills at rotation too"
    assert [record.number for record in records(file)] == list(range(1, last + 1))
    assert files.lock(file).exists(), "nobody was left to remove it"
