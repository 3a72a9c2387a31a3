"""One target's search: a worker is started, watched, and started again after a crash or a hang, until time is over."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.blackbox import read
from fuzz.judge import CPU_SECONDS
from fuzz.targets import HERE

WORKER = (sys.executable, "-m", "fuzz.worker")
STARTING_SECONDS = 300
"""Until the first input: imports, and the fixtures of a target."""
STILL_SECONDS = 6 * CPU_SECONDS
"""By the clock, on one input: a wait that takes no processor time, or native code that no signal interrupts."""


@dataclass
class Search:
    """What came of a target."""

    target: str
    runs: int = 0
    succeeded: int = 0
    """Of `runs`; the others were refused, or are findings."""
    seconds: float = 0.0
    findings: dict[str, Path] = field(default_factory=dict)
    """By name; the input is in the file, what it did is beside it in a text file."""


def search(
    target: str, seconds: float, seed: int, folder: Path, plain: bool = False, worker: Sequence[str] = WORKER
) -> Search:
    """Try inputs for `seconds`, the time that starting takes apart; findings go to `folder`."""
    found = Search(target)
    while found.seconds < seconds:
        with tempfile.TemporaryDirectory() as state:
            left = seconds - found.seconds
            command = [*worker, target, state, "--seconds", str(left), "--seed", str(seed), *["--plain"] * plain]
            found.seconds += _work(command, Path(state), left)
            record = read(Path(state) / "current")
            found.runs += record.begun
            found.succeeded += record.succeeded
            _collect(Path(state), folder, found)
        seed += 1
    return found


def _work(command: Sequence[str], state: Path, seconds: float) -> float:
    """Run one worker to its end, or kill it where it hangs; gives the seconds that it was at work."""
    with (state / "log").open("wb") as log:
        worker = subprocess.Popen(command, cwd=HERE.parent, stdout=log, stderr=log, start_new_session=True)
        begun, hung = _watch(worker, state / "current")
        code = worker.wait()
    if begun is None or hung or code != 0:
        text = (state / "log").read_text("utf-8", "replace")[-3000:]
        _note(state, "hang" if hung else f"exit-code-{code}", text)
    return seconds if begun is None else max(1.0, time.monotonic() - begun)


def _watch(worker: subprocess.Popen[bytes], current: Path) -> tuple[float | None, bool]:
    """Until the worker has ended: when it began its first input, and whether it had to be killed for standing still."""
    begun: float | None = None
    seen, since = 0, time.monotonic()
    while worker.poll() is None:
        time.sleep(0.2)
        count, now = read(current).begun, time.monotonic()
        if count != seen:
            seen, since = count, now
        if begun is None and count:
            begun = now
        if now - since > (STARTING_SECONDS if begun is None else STILL_SECONDS):
            os.killpg(worker.pid, signal.SIGKILL)
            return begun, True
    return begun, False


def _note(state: Path, what: str, text: str) -> None:
    """The input that the worker died of, as a fault."""
    faults = state / "faults"
    faults.mkdir(exist_ok=True)
    data = read(state / "current").data
    name = f"{what}-{hashlib.sha256(data).hexdigest()[:8]}"
    (faults / name).write_bytes(data)
    (faults / f"{name}.txt").write_text(f"{what}\n{text}", encoding="utf-8")


def _collect(state: Path, folder: Path, found: Search) -> None:
    for fault in _faults(state):
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / fault.name
        if fault.name not in found.findings:
            shutil.copy(fault, kept)
            shutil.copy(fault.with_name(f"{fault.name}.txt"), folder / f"{fault.name}.txt")
        found.findings[fault.name] = kept


def _faults(state: Path) -> Iterator[Path]:
    return (file for file in sorted((state / "faults").glob("*")) if file.suffix != ".txt")
