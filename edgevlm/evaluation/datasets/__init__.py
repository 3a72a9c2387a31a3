"""Data sets: a file here for each that has a name (its `load` makes it), any folder with a questions file, and records
of a watch with the marks of people.

A folder goes through `folder.load`, records through `records.load`; docs/eval.md describes their files.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from edgevlm.evaluation.datasets.base import Case, Dataset, DatasetOptions
from edgevlm_runtime.checks import question_file
from edgevlm_runtime.errors import EdgeVLMError

NAMED = ("inspection",)
"""Data sets that come with edgevlm; each is a file in this package."""

__all__ = ["NAMED", "Case", "Dataset", "DatasetOptions", "load_dataset"]


def load_dataset(name: str, options: DatasetOptions) -> Dataset:
    """The data set called `name`, or in the folder `name`.

    Raises `EdgeVLMError` when there is none, when its questions cannot be read, or when `options` do not fit it.
    """
    kind = name if name in NAMED else _kind(Path(name))
    dataset: Dataset = import_module(f"{__name__}.{kind}").load(name, options)
    return dataset


def _kind(path: Path) -> str:
    if path.is_file():
        return "records"
    if not path.is_dir():
        known = f"pass {', '.join(NAMED)}, a folder with questions.jsonl, or the records of a watch"
        raise EdgeVLMError(f"no such data set: {path}: {known}")
    if question_file.find(path) is not None:
        return "folder"
    from edgevlm.evaluation.datasets.records import holds

    return "records" if holds(path) else "folder"
