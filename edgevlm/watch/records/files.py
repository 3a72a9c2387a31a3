"""Names of the files that belong to one record file, and which of them are there.

records.jsonl                       the one that is written to
records.000000001.jsonl, ...        closed ones, each named after the number of its first record
records.marks.jsonl                 what people said of records
records.plan-0123456789abcdef.json  the plan that records name by its digest
records.jsonl.lock                  held by the process that writes
"""

from __future__ import annotations

import re
from pathlib import Path

_CLOSED = re.compile(r"(?P<name>.+)\.(?P<first>\d{9,})")


def closed(file: Path, first: int) -> Path:
    """Where a full `file` goes whose first record has the number `first`."""
    return file.with_name(f"{file.stem}.{first:09d}{file.suffix}")


def first_number(file: Path) -> int | None:
    """The number of the first record that a closed file is named after; None for a file that is written to."""
    found = _CLOSED.fullmatch(file.stem)
    return None if found is None else int(found["first"])


def active(file: Path) -> Path:
    """The file that is written to, of the chain that `file` belongs to."""
    found = _CLOSED.fullmatch(file.stem)
    return file if found is None else file.with_name(found["name"] + file.suffix)


def closed_files(file: Path) -> list[Path]:
    """The closed files of the chain that is written to `file`, oldest first."""
    if not file.parent.is_dir():
        return []
    found = [path for path in file.parent.iterdir() if active(path) == file and path != file and path.is_file()]
    return sorted(found, key=lambda path: first_number(path) or 0)


def chain(file: Path) -> list[Path]:
    """Every file of the chain that is written to `file`, oldest first."""
    return [*closed_files(file), *([file] if file.is_file() else [])]


def marks(file: Path) -> Path:
    """Where the marks of a chain's records are."""
    written = active(file)
    return written.with_name(f"{written.stem}.marks.jsonl")


def plan(file: Path, digest: str) -> Path:
    """Where the plan is that records name by `digest`."""
    written = active(file)
    return written.with_name(f"{written.stem}.plan-{digest[:16]}.json")


def lock(file: Path) -> Path:
    """What the process that writes holds."""
    return file.with_name(f"{file.name}.lock")
