"""A small plan as TOML, and its parts, to be changed and broken."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

TOP = """\
name = "line-1"
bundle = "inspector"
"""
SOURCE = """\
[source]
kind = "video"
path = "line.mp4"
"""
TRIGGER = """\
[trigger]
kind = "every"
frames = 1
"""
QUESTION = """\
[[question]]
name = "scratch"
text = "Is there a scratch?"
choices = ["yes", "no"]
"""
PLAN = f"{TOP}\n{SOURCE}\n{TRIGGER}\n{QUESTION}"


def plan(
    *, top: str = TOP, source: str = SOURCE, trigger: str = TRIGGER, question: str = QUESTION, more: str = ""
) -> str:
    """The plan, with parts in place of its own, and `more` at its end."""
    return f"{top}\n{source}\n{trigger}\n{question}\n{more}"


def write(folder: Path, text: str = PLAN) -> Path:
    """The plan in a file of `folder`."""
    file = folder / "plan.toml"
    file.write_text(text, encoding="utf-8")
    return file


def picture(file: Path, size: tuple[int, int] = (64, 48)) -> Path:
    """A picture to name in a plan."""
    Image.new("RGB", size, (90, 120, 150)).save(file)
    return file
