"""A folder of images with `questions.jsonl` or `questions.csv`. docs/eval.md describes both.

Evaluation asks these questions, on a device too; calibration at export reads them along with their answers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.reading import decode_json, is_regular, read_text, why

SEPARATOR = "|"
"""Between several images or choices in one cell of a CSV file."""
MOST_BYTES = 1 << 30
"""A file of questions is read whole."""
NEEDED = ("image", "question")
KNOWN = (*NEEDED, "answer", "kind", "choices", "id", "split")


SIMPLE = ("question", "answer", "kind", "id", "split")


@dataclass(frozen=True, slots=True)
class Row:
    """One question of a file."""

    id: str
    images: tuple[Path, ...]
    image_name: str
    """Names the images for people; equal for questions that share them."""
    question: str
    answer: str | None
    kind: str
    choices: tuple[str, ...]
    split: str | None


@dataclass(frozen=True, slots=True)
class QuestionFile:
    """A questions file, read."""

    path: Path
    text: str
    rows: tuple[Row, ...]


def find(folder: Path) -> Path | None:
    """The questions file of a folder, or None."""
    return next((file for file in (folder / reader for reader in READERS) if is_regular(file)), None)


def read(file: Path, split: str | None = None) -> QuestionFile:
    """The questions, of one split where that is asked for, each image checked to be there.

    Raises `EdgeVLMError`, naming the line.
    """
    try:
        text = read_text(file, MOST_BYTES, "utf-8-sig")
    except OSError as error:
        raise EdgeVLMError(f"cannot read {file}: {why(error)}: it must be a UTF-8 text file") from error
    read_rows = READERS[file.name](text, file)
    rows = [_row(row, number, file) for number, row in read_rows if split is None or row.get("split") == split]
    if not rows:
        which = "no questions" if split is None else f"no questions of split {split!r}"
        raise EdgeVLMError(f"{which} in {file}")
    _check_ids(rows, file)
    return QuestionFile(file, text, tuple(rows))


def _jsonl(text: str, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of every line that is not empty."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        row = decode_json(line.encode("utf-8"), object, f"{file}, line {number}: not JSON")
        if not isinstance(row, dict):
            raise EdgeVLMError(f"{file}, line {number}: a line must be a JSON object")
        yield number, row


def _csv(text: str, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in rows:
            if None in row or None in row.values():
                raise EdgeVLMError(f"{file}, line {rows.line_num}: more or fewer cells than the header has")
            cells: dict[str, Any] = {key.strip(): value for key, value in row.items() if value != ""}
            for name in ("image", "choices"):
                if SEPARATOR in cells.get(name, ""):
                    cells[name] = cells[name].split(SEPARATOR)
            yield rows.line_num, cells
    except csv.Error as error:
        raise EdgeVLMError(f"{file}, line {rows.line_num}: not CSV: {error}") from error


READERS = {"questions.jsonl": _jsonl, "questions.csv": _csv}
"""By file name; the first that is there is read."""


def _row(row: Mapping[str, Any], number: int, file: Path) -> Row:
    where = f"{file}, line {number}"
    for name in NEEDED:
        if not row.get(name):
            raise EdgeVLMError(f"{where}: no {name!r}: known names are {', '.join(KNOWN)}")
    names = _texts(row, "image", where)
    for name in SIMPLE:
        if isinstance(row.get(name), dict | list):
            raise EdgeVLMError(f"{where}: {name!r} must be a text or a number, not {str(row[name])[:80]}")
    answer, split = row.get("answer"), row.get("split")
    images = tuple(file.parent / name for name in names)
    for image in images:
        if not is_regular(image):
            raise EdgeVLMError(f"{where}: no image {image}: images are named relative to {file.parent}")
    return Row(
        id=str(row.get("id", number)),
        images=images,
        image_name=SEPARATOR.join(names),
        question=str(row["question"]),
        answer=None if answer is None else str(answer),
        kind=str(row.get("kind", "all")),
        choices=_texts(row, "choices", where),
        split=None if split is None else str(split),
    )


def _texts(row: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = row.get(name, ())
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text for text in texts):
        raise EdgeVLMError(f"{where}: {name!r} must be a text or a list of texts, not {value!r}")
    return tuple(text.strip() for text in texts)


def _check_ids(rows: list[Row], file: Path) -> None:
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise EdgeVLMError(f"{file}: two questions have the id {row.id!r}: ids must differ")
        seen.add(row.id)
