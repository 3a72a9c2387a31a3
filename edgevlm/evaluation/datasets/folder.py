"""A folder of images with `questions.jsonl` or `questions.csv`. docs/eval.md describes both."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevlm.evaluation.datasets.base import Case, DatasetOptions
from edgevlm_runtime.errors import EdgeVLMError

SEPARATOR = "|"
"""Between several images or choices in one cell of a CSV file."""
NEEDED = ("image", "question")
KNOWN = (*NEEDED, "answer", "kind", "choices", "id", "split")


@dataclass(frozen=True, slots=True)
class Folder:
    """Every case of the questions file, those about the same images next to each other."""

    name: str
    identity: str
    cases: tuple[Case, ...]

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)


def load(name: str, options: DatasetOptions) -> Folder:
    """Read the questions file and check that every image it names is there. Raises `EdgeVLMError`, naming the line."""
    folder = Path(name)
    file = next((file for file in (folder / reader for reader in READERS) if file.is_file()), None)
    if file is None:
        raise EdgeVLMError(f"no questions in {folder}: put a {' or '.join(READERS)} there (see docs/eval.md)")
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise EdgeVLMError(f"cannot read {file}: {error}: it must be a UTF-8 text file") from error
    cases = [_case(row, number, file) for number, row in READERS[file.name](text, file) if _wanted(row, options.split)]
    if not cases:
        which = "no questions" if options.split is None else f"no questions of split {options.split!r}"
        raise EdgeVLMError(f"{which} in {file}")
    _check_ids(cases, file)
    cases = _together(cases)[: options.n]
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Folder(str(folder), f"folder {digest} {options.split or ''} {options.n or ''}", tuple(cases))


def _jsonl(text: str, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of every line that is not empty."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise EdgeVLMError(f"{file}, line {number}: not JSON: {error}") from error
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


def _wanted(row: Mapping[str, Any], split: str | None) -> bool:
    return split is None or row.get("split") == split


def _case(row: Mapping[str, Any], number: int, file: Path) -> Case:
    where = f"{file}, line {number}"
    for name in NEEDED:
        if not row.get(name):
            raise EdgeVLMError(f"{where}: no {name!r}: known names are {', '.join(KNOWN)}")
    names = _texts(row, "image", where)
    answer = row.get("answer")
    images = tuple(file.parent / name for name in names)
    for image in images:
        if not image.is_file():
            raise EdgeVLMError(f"{where}: no image {image}: images are named relative to {file.parent}")
    return Case(
        id=str(row.get("id", number)),
        images=images,
        image_name=SEPARATOR.join(names),
        question=str(row["question"]),
        answer=None if answer is None else str(answer),
        kind=str(row.get("kind", "all")),
        choices=_texts(row, "choices", where),
    )


def _texts(row: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = row.get(name, ())
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text for text in texts):
        raise EdgeVLMError(f"{where}: {name!r} must be a text or a list of texts, not {value!r}")
    return tuple(text.strip() for text in texts)


def _check_ids(cases: list[Case], file: Path) -> None:
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise EdgeVLMError(f"{file}: two questions have the id {case.id!r}: ids must differ")
        seen.add(case.id)


def _together(cases: list[Case]) -> list[Case]:
    """Cases about the same images next to each other, in the order in which the images first appear."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.image_name, []).append(case)
    return [case for group in groups.values() for case in group]
