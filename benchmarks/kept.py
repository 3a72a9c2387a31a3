"""What a benchmark keeps: figures in a file of benchmarks/results, and the section of a page written from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgevlm.machine import memory, package_versions, processor


def store(file: Path, *place: str, figures: object, **more: object) -> None:
    """Put `figures` where the keys `place` lead, in place of what was there; the machine, and `more`, at the top."""
    stored: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    stored["machine"] = {"processor": asdict(processor()), "memory": asdict(memory()), "packages": package_versions()}
    stored.update(more)
    inner = stored
    for key in place[:-1]:
        inner = inner.setdefault(key, {})
    inner[place[-1]] = figures
    file.write_text(json.dumps(stored, indent=1) + "\n")


def marks(name: str) -> tuple[str, str]:
    """Between which lines of a page the section of `benchmarks.NAME` stands."""
    return f"<!-- {name}: written by benchmarks.{name} -->", f"<!-- {name}: end -->"


def write_section(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between the marks."""
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def table(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown, numbers to the right."""
    return "\n".join([_row(header), "| --- |" + " ---: |" * (len(header) - 1), *map(_row, rows)])


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
