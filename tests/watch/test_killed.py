"""kill -9 of a whole watch at random moments: records parse and chain, numbers go on, and every record gets to every
peer, whose repeats have the same id.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgevlm.watch.records.record import Record
from edgevlm.watch.sinks.spooling.kept import SAVE_EVERY
from tests.support.hooked import Hook
from tests.support.mosquitto import Subscriber, running
from tests.support.polling import until
from tests.support.running import problems, records, write_plan

SINKS = """\
rotate_mb = 0.05
[[sink]]
kind = "mqtt"
host = "127.0.0.1"
port = {broker}
[[sink]]
kind = "webhook"
url = "http://127.0.0.1:{hook}/records"
"""
MOST_REPEATED = 2 * SAVE_EVERY
"""By a kill: what was not written of how far the other side is, and what was under way."""
MOST_RUNS = 100
"""In which everything must be sent, in the end."""
LONGEST_S = 0.6
"""A kill comes so long after the first new record, at most; every fourth comes while the watch is starting."""


@contextmanager
def started(plan: Path, state: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`edgevlm watch`, with what it says in a file."""
    command = [sys.executable, "-m", "edgevlm", "watch", str(plan), *arguments]
    environment = {**os.environ, "XDG_STATE_HOME": str(state), "OMP_NUM_THREADS": "1"}
    with (plan.parent / "said").open("wb") as said:
        process = subprocess.Popen(command, env=environment, cwd=plan.parent, stdout=said, stderr=said)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def check(folder: Path, last: int) -> list[Record]:
    """Every record, after a kill: whole, in one chain, none gone of those that were there."""
    if not (folder / "records.jsonl").exists() and last == 0:
        return []
    found = every_record(folder)
    assert problems(folder) == ()
    assert [one.number for one in found] == list(range(1, len(found) + 1))
    assert len(found) >= last
    return found


def every_record(folder: Path) -> list[Record]:
    """Those of closed files too."""
    from edgevlm.watch.records import reading

    return list(reading.records(folder / "records.jsonl"))


def kill_at_random(plan: Path, state: Path, chance: random.Random, starting: bool) -> None:
    folder = plan.parent
    before = len(records(folder))
    with started(plan, state) as process:
        if starting:
            time.sleep(chance.uniform(0, 1.5))
        else:
            until(lambda: process.poll() is not None or _newer(folder, before), "a new record")
            time.sleep(chance.uniform(0, LONGEST_S))
        assert process.poll() is None, (process.returncode, (folder / "said").read_text("utf-8"))
        process.send_signal(signal.SIGKILL)
        process.wait()


def _newer(folder: Path, before: int) -> bool:
    """Whether the file that is written to has changed."""
    return len(records(folder)) not in (before, 0)


def away(hook: Hook, chance: random.Random) -> None:
    """The server fails now and then, in every way."""
    hook.answers = deque(chance.choices([200, 503, "close"], [8, 1, 1], k=20))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_kill_9(tmp_path: Path, tiny_bundle: Path, kills: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    chance, state, last = random.Random(kills), tmp_path / "state", 0
    (tmp_path / "watch").mkdir()
    with running(tmp_path / "broker") as broker, Hook() as hook:
        subscriber = Subscriber(broker, "edgevlm/#")
        more = SINKS.format(broker=broker.port, hook=hook.port)
        plan = write_plan(tmp_path / "watch", tiny_bundle, loop=True, more=more)
        for number in range(kills):
            away(hook, chance)
            if number % 5 == 1:
                broker.stop()
            kill_at_random(plan, state, chance, starting=number % 4 == 3)
            last = len(check(plan.parent, last))
            if broker.process is None:
                broker.start()
        assert last > kills
        hook.answers.clear()
        written = _finish(plan, state, last, subscriber, hook)
        subscriber.stop()
    for got in (posted(hook), subscriber.records()):
        _delivered(written, got)
        assert len(got) <= len(written) + MOST_REPEATED * (kills + 1)


def _finish(plan: Path, state: Path, last: int, subscriber: Subscriber, hook: Hook) -> list[Record]:
    """Runs of one frame to their orderly end, until all is sent; each sends what is left for a bounded time."""
    for runs in itertools.count(1):
        with started(plan, state, "--max-frames", "1") as process:
            code = process.wait(60)
        assert code == 0, (code, (plan.parent / "said").read_text("utf-8"))
        ids = {one.id for one in every_record(plan.parent)}
        missing = [len(ids - {one["id"] for one in got}) for got in (posted(hook), subscriber.records())]
        if missing == [0, 0]:
            break
        assert runs < MOST_RUNS, f"of {len(ids)} records the server still lacks {missing[0]}, the broker {missing[1]}"
    written = check(plan.parent, last + runs)
    assert len(written) == last + runs
    return written


def posted(hook: Hook) -> list[dict[str, Any]]:
    """What the server took; of a request whose sender was killed it has a part."""
    took = [(headers, body) for headers, body, answer, _ in list(hook.received) if answer == 200]
    return [json.loads(body) for headers, body in took if len(body) == int(headers["Content-Length"])]


def _delivered(written: list[Record], got: list[dict[str, Any]]) -> None:
    """Each at least once, whole, under its id, and nothing that was never recorded."""
    ids = {one.id: one for one in written}
    assert len(ids) == len(written), "no two records have one id"
    assert {one["id"] for one in got} == set(ids)
    for one in got:
        assert (one["number"], one["sha256"]) == (ids[one["id"]].number, ids[one["id"]].sha256)
    first = list(dict.fromkeys(one["number"] for one in got))
    assert first == sorted(first), "they first come in their order"
