"""Export, ask here, ask on every core, compare."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tests.arm64.commands import CannotCheckError, CommandError, output
from tests.arm64.comparing import Difference, Record, differences, largest_gaps
from tests.arm64.cores import Core
from tests.arm64.device import Device, known_cores, make_device, missing_tools
from tests.support.repository import ROOT

QUESTIONS_PER_PICTURE = 8
"""One of every kind that the inspection data set has."""
VERDICTS = {
    "Is the part defective?": ("yes", "no"),
    "Which defect does the part have?": ("scratch", "dent", "stain", "crack", "missing screw", "none"),
}
THREADS = 2
"""Of a graph. More cost time under emulation, where threads that wait spin."""
ASKING = Path(__file__).with_name("asking.py")
QUIET = {"ORT_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True)
class Checked:
    """One bundle on one core."""

    precision: str
    core: Core
    reference: Record
    found: list[Difference]
    gaps: tuple[float, float] | None
    """Between probabilities of tokens, and of choices; None where something differs."""
    seconds: float


def check(home: Path, precisions: Sequence[str], pictures: int) -> list[Checked]:
    """Every precision on every core that QEMU knows; the arm64 root is kept in the folder `home`.

    Raises `CannotCheckError` where something is not installed or cannot be fetched, `CommandError` where an export
    fails or this machine does not answer. What an emulated process does wrong is a difference.
    """
    if missing := missing_tools():
        raise CannotCheckError(missing)
    home.mkdir(parents=True, exist_ok=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # QEMU leaves large ones
    device, cores = make_device(home), known_cores()
    with tempfile.TemporaryDirectory(dir=home, prefix="asking-") as work:
        job = _draw(Path(work, "parts"), pictures)
        return [row for precision in precisions for row in _ask(job, precision, device, cores, Path(work, precision))]


def _draw(folder: Path, pictures: int) -> dict[str, Any]:
    """Drawn parts, and what is asked about them: a job for `asking`, but for the bundle."""
    count = pictures * QUESTIONS_PER_PICTURE
    drawn = ("--write", folder, "--n", str(count), "--per-image", str(QUESTIONS_PER_PICTURE))
    _edgevlm("eval", "--dataset", "inspection", *drawn)
    lines = (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    asked = [(str(folder / case["image"]), case["question"]) for case in map(json.loads, lines)]
    pictures_asked = dict.fromkeys(picture for picture, _ in asked)
    verdicts = [(picture, *verdict) for picture in pictures_asked for verdict in VERDICTS.items()]
    return {"questions": asked, "verdicts": verdicts, "threads": THREADS}


def _ask(job: dict[str, Any], precision: str, device: Device, cores: Sequence[Core], bundle: Path) -> list[Checked]:
    """One bundle, exported and asked here, then on every core."""
    _say(f"inspector {precision}: exporting")
    _edgevlm("export", "inspector", f"--{precision}", "--no-certificate", "--no-self-test", "--output", bundle)
    job = {**job, "bundle": str(bundle), "paths": []}
    here = _record(sys.executable, "-P", ASKING, json.dumps(job))
    job["paths"] = [str(device.site_packages), str(ROOT / "runtime")]
    rows = []
    for core in cores:
        _say(f"inspector {precision}: asking on an emulated {core.name}")
        start = time.perf_counter()
        found, gaps = _compare(here, core, *device.command(core, ASKING), json.dumps(job))
        rows.append(Checked(precision, core, here, found, gaps, time.perf_counter() - start))
    return rows


def _compare(here: Record, core: Core, *command: str | Path) -> tuple[list[Difference], tuple[float, float] | None]:
    try:
        there = _record(*command)
    except CommandError as error:
        return [Difference("the process", "answers", str(error))], None
    found = differences(here, there, core)
    return found, None if found else largest_gaps(here, there)


def _record(*command: str | Path) -> Record:
    return msgspec.json.decode(output(command, **QUIET), type=Record)


def _edgevlm(*arguments: str | Path) -> None:
    output([sys.executable, "-P", "-m", "edgevlm", *arguments], **QUIET)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
