"""A folder of images with a questions file (`edgevlm_runtime.checks.question_file`) as a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgevlm.evaluation.datasets.base import Case, DatasetOptions
from edgevlm_runtime.checks import question_file
from edgevlm_runtime.errors import EdgeVLMError


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
    file = question_file.find(folder)
    if file is None:
        known = " or ".join(question_file.READERS)
        raise EdgeVLMError(f"no questions in {folder}: put a {known} there (see docs/eval.md)")
    questions = question_file.read(file, options.split)
    cases = _together([_case(row) for row in questions.rows])[: options.n]
    digest = hashlib.sha256(questions.text.encode()).hexdigest()[:16]
    return Folder(str(folder), f"folder {digest} {options.split or ''} {options.n or ''}", tuple(cases))


def _case(row: question_file.Row) -> Case:
    return Case(row.id, row.images, row.image_name, row.question, row.answer, row.kind, row.choices)


def _together(cases: list[Case]) -> list[Case]:
    """Cases about the same images next to each other, in the order in which the images first appear."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.image_name, []).append(case)
    return [case for group in groups.values() for case in group]
