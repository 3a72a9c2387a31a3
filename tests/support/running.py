"""Plans of small pictures and a tiny bundle, and a watch of one in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgevlm.watch.plan.plan import Plan
from edgevlm.watch.plan.read import read
from edgevlm.watch.records.reading import lines
from edgevlm.watch.records.record import Record
from edgevlm.watch.records.verify import verify

PLAN = """
name = "line-1"
bundle = "{bundle}"
{top}
[source]
kind = "pictures"
files = ["part-*.png"]
loop = {loop}
[trigger]
kind = "every"
[[question]]
name = "scratch"
text = "Is there a scratch?"
choices = ["yes", "no"]
[records]
file = "records.jsonl"
{more}
"""


def write_plan(
    folder: Path, bundle: Path, *, pictures: int = 4, loop: bool = False, top: str = "", more: str = ""
) -> Path:
    """A plan in `folder` that asks about pictures drawn there."""
    for i in range(pictures):
        pixels = np.random.default_rng(i).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"part-{i:02d}.png")
    file = folder / "plan.toml"
    file.write_text(PLAN.format(bundle=bundle, loop=str(loop).lower(), top=top, more=more), encoding="utf-8")
    return file


def make_plan(folder: Path, bundle: Path, **more: Any) -> Plan:
    """The same, read."""
    return read(write_plan(folder, bundle, **more))


def records(folder: Path) -> list[Record]:
    """What was recorded so far."""
    file = folder / "records.jsonl"
    return [line.record() for line in lines(file)] if file.exists() else []


def problems(folder: Path) -> tuple[Any, ...]:
    """What is wrong with the chain of records."""
    (found,) = verify(folder / "records.jsonl")
    return tuple(found.problems)


@contextmanager
def supervisor(folder: Path) -> Iterator[socket.socket]:
    """The socket that systemd would have; its name is `folder / "notify"`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(folder / "notify"))
        receiver.settimeout(60)
        yield receiver


@contextmanager
def process(plan: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """`edgevlm watch PLAN`; killed at the end, if it is there by then."""
    command = [sys.executable, "-m", "edgevlm", "watch", str(plan), *arguments]
    given = {**os.environ, **environment}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=given, cwd=plan.parent, **pipes) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                running.kill()
