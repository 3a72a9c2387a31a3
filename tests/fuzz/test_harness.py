"""The search finds what is planted: wrong exceptions, panics, loops, memory, processes that die or stand still."""

from __future__ import annotations

import itertools
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgevlm_runtime.errors import BundleError
from fuzz import judge, mutate, supervise
from fuzz.targets import TARGETS, get_target, inputs


class Panic(BaseException):
    """As pyo3 has them."""


def loop() -> None:
    for _ in itertools.count():
        pass


def stubborn() -> None:
    """Who swallows every exception is late all the same."""
    try:
        loop()
    except BaseException as error:
        raise BundleError("refused") from error


def hungry() -> None:
    try:
        raise MemoryError
    except MemoryError as error:
        raise BundleError("refused") from error


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        (lambda: fail(ValueError("x")), "ValueError"),
        (lambda: fail(Panic("at some.rs:7")), "Panic"),
        (lambda: fail(SystemExit(3)), "SystemExit"),
        (loop, "TooLong"),
        (stubborn, "TooLong"),
        (hungry, "MemoryError"),
        (lambda: fail(judge.WrongOutcome("exit code 7")), "WrongOutcome"),
        (lambda: fail(BundleError("refused")), None),
        (lambda: None, None),
    ],
)
def test_what_a_fault_is(what: Callable[[], None], kind: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "CPU_SECONDS", 0.2)
    fault = judge.judge(lambda _: what(), b"")
    assert (fault and fault.kind.split()[0]) == kind


def test_a_fault_is_named_by_where_ours_failed() -> None:
    from edgevlm_runtime.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_json((inputs("tokenizer")[0]).read_text(encoding="utf-8"))
    faults = [judge.judge(lambda _, text=text: tokenizer.encode(text), b"") for text in (3, [4])]  # type: ignore[arg-type,misc]
    assert {fault and fault.kind.rpartition(" ")[0] for fault in faults} == {"AttributeError in messages"}
    assert len({fault and fault.name for fault in faults}) == 1


DYING = """
import os, sys, time
from pathlib import Path
from fuzz.blackbox import BlackBox
box = BlackBox(Path(sys.argv[2]) / "current", 1000)
box.begin(b"harmless")
box.succeed()
box.begin(b"deadly")
{}
"""


@pytest.mark.parametrize(
    ("end", "named"), [("os.abort()", "exit-code--6"), ("time.sleep(600)", "hang"), ("sys.exit(77)", "exit-code-77")]
)
def test_a_worker_that_dies_or_stands_still(
    end: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "STILL_SECONDS", 1)
    found = supervise.search("any", 0.5, 1, tmp_path / "found", worker=[sys.executable, "-c", DYING.format(end)])
    assert (found.runs, found.succeeded) == (2, 1)
    ((name, file),) = found.findings.items()
    assert name.startswith(named)
    assert file.read_bytes() == b"deadly"


def test_a_search_tries_inputs(tmp_path: Path) -> None:
    found = supervise.search("tokenizer", 1.0, 1, tmp_path, plain=True)
    assert found.runs > found.succeeded > len(inputs("tokenizer"))
    assert found.findings == {}


@pytest.mark.parametrize("name", TARGETS)
def test_changes_are_many_and_reproducible(name: str) -> None:
    seeds = [file.read_bytes() for file in inputs(name)]
    rng, again = random.Random(1), random.Random(1)
    change = get_target(name).mutate
    made = [change(seeds[number % len(seeds)], rng, seeds) for number in range(100)]
    assert made == [change(seeds[number % len(seeds)], again, seeds) for number in range(100)]
    assert len(set(made)) > 80


def test_json_stays_json_most_of_the_time() -> None:
    rng, document = random.Random(0), json.dumps({"a": [1, {"b": "text"}], "c": None}).encode()
    whole = 0
    for _ in range(300):
        try:
            json.loads(mutate.mutate_json(document, rng))
        except (ValueError, RecursionError):
            continue
        whole += 1
    assert whole > 200
