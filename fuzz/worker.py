"""The process that tries inputs: started by `fuzz.supervise`, one for each target, and again after a crash.

    python -m fuzz.worker TARGET STATE --seconds 30 --seed 1 [--plain]

Each input is first put into STATE/current (`fuzz.blackbox`), so that whoever watches has it when this process dies or
hangs. Faults go to STATE/faults, one file for each kind. With atheris installed, coverage guides the search; without,
or with --plain, inputs that succeeded become further seeds.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz import judge
from fuzz.blackbox import BlackBox
from fuzz.targets import Target, get_target, inputs

LARGEST = 1 << 20
"""Bytes of an input."""
POOL = 400
"""Inputs that succeeded and are kept as further seeds, without atheris."""


class Trial:
    """Tries one input after the other, and writes down what comes of it."""

    def __init__(self, run: Callable[[bytes], None], state: Path) -> None:
        self._run = run
        self._faults = state / "faults"
        self._faults.mkdir(exist_ok=True)
        self._box = BlackBox(state / "current", LARGEST)
        self._known: set[str] = set()
        self._taken = False

    def __call__(self, data: bytes) -> bool:
        """Whether the input succeeded."""
        self._taken = False
        self._box.begin(data)
        fault = judge.judge(self._counted, data)
        if fault is not None and fault.name not in self._known:
            self._known.add(fault.name)
            (self._faults / fault.name).write_bytes(data)
            (self._faults / f"{fault.name}.txt").write_text(f"{fault.kind}\n{fault.details}", "utf-8", "replace")
        return self._taken

    def _counted(self, data: bytes) -> None:
        self._run(data)
        self._taken = True
        self._box.succeed()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fuzz.worker")
    parser.add_argument("target")
    parser.add_argument("state", type=Path)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="without atheris")
    given = parser.parse_args()
    guided = not given.plain and importlib.util.find_spec("atheris") is not None
    with tempfile.TemporaryDirectory() as folder, _instrumented(guided):
        target = get_target(given.target)
        surface = target.Surface(Path(folder))
        trial = Trial(surface.run, given.state)
        seeds = [file.read_bytes() for file in inputs(given.target)]
        judge.limit_memory()
        if guided:
            _guided(target, trial, seeds, given.state, given.seconds, given.seed)
        else:
            _plain(target, trial, seeds, given.seconds, given.seed)


def _plain(target: Target, trial: Trial, seeds: list[bytes], seconds: float, seed: int) -> None:
    rng, end, pool = random.Random(seed), time.monotonic() + seconds, list(seeds)
    for data in seeds:
        trial(data)
    while time.monotonic() < end:
        data = target.mutate(rng.choice(pool), rng, pool)[:LARGEST]
        if trial(data) and len(data) < LARGEST // 16:
            if len(pool) < POOL + len(seeds):
                pool.append(data)
            else:
                pool[rng.randrange(len(seeds), len(pool))] = data


def _instrumented(guided: bool) -> Any:
    """Within it, what is imported of ours counts its branches."""
    if not guided:
        return contextlib.nullcontext()
    import atheris

    return atheris.instrument_imports(include=["edgevlm", "edgevlm_runtime", "edgevlm_export"])


def _guided(target: Target, trial: Trial, seeds: list[bytes], state: Path, seconds: float, seed: int) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris

    corpus = state / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, data in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(data)

    def one(data: bytes) -> None:
        trial(data)

    def changed(data: bytes, largest: int, number: int) -> bytes:
        rng = random.Random(number)
        if rng.random() < 0.2:
            return bytes(atheris.Mutate(data, largest))
        return target.mutate(rng.choice([data, rng.choice(seeds)]), rng, seeds)[:largest]

    options = [
        f"-max_total_time={max(1, int(seconds))}",
        f"-seed={seed or 1}",
        f"-max_len={LARGEST}",
        "-rss_limit_mb=0",
        "-timeout=300",
    ]
    options += ["-len_control=0", "-verbosity=0", "-detect_leaks=0", f"-artifact_prefix={state}/"]
    atheris.Setup(["fuzz", *options, str(corpus)], one, custom_mutator=changed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
