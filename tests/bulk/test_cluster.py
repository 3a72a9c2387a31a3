"""Work on a real Ray: the same answers, and none lost or doubled where an actor is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from edgevlm.bulk.cluster import PARTS_OF_WORKER, Pending, Work
from edgevlm.bulk.readers import Columns, read
from edgevlm.bulk.rows import Ask, asks_of
from edgevlm.bulk.run import MapOptions, run
from tests.bulk.conftest import QUESTIONS, lines

ROWS = 60


@pytest.fixture
def table(pictures: Path, tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    names = [f"{i},{pictures / f'{i % 12:02}.png'}" for i in range(ROWS)]
    path.write_text("\n".join(["id,image", *names]), encoding="utf-8")
    return path


def test_parts_have_every_question_once(table: Path) -> None:
    reader = read(str(table), Columns())
    asks = [ask for row in reader.rows() for ask in asks_of(row, QUESTIONS)]
    wanted = [ask for ask in asks if ask.slot % 7]
    pending = Pending(QUESTIONS)
    pending.add(wanted)
    work = Work(reader, QUESTIONS, None)  # type: ignore[arg-type]
    found: list[Ask] = []
    parts = pending.parts(2)
    assert 1 < len(parts) <= 2 * PARTS_OF_WORKER
    for part in parts:
        assert array("q", part["slots"])[0] // 2 == part["first"]
        found.extend(ask for group in work.groups(part) for ask in group.asks)
    assert found == wanted


def asking_processes() -> list[int]:
    """Ray's workers below this process that have our class."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if "MapBatches(Asking)" in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


@pytest.mark.slow
def test_an_actor_that_is_killed(
    work: Callable[..., MapOptions], table: Path, said: dict[tuple[str, str], str]
) -> None:
    pytest.importorskip("ray.data", reason="ray is not installed: pip install 'edgevlm[ray]'")
    options, killed = work(input=str(table), ray="local"), list[int]()

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "asking" and 20 < done < total and not killed:
            killed.extend(asking_processes()[:1])
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    report = run(options, progress)
    assert killed, "an actor was found and killed"
    found = lines(options.output)
    assert [(row["id"], row["question"]) for row in found] == [(str(i), q) for i in range(ROWS) for q in QUESTIONS]
    assert {str(row["error"]) for row in found} == {"None"}
    for row in found:
        assert row["answer"] == said[f"{int(str(row['id'])) % 12:02}.png", str(row["question"])]
    assert (report.rows, report.processes) == (2 * ROWS, 2)
    end = time.monotonic() + 60
    while asking_processes():
        assert time.monotonic() < end, "Ray is gone with the work"
        time.sleep(0.2)
