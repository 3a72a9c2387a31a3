"""Data sets: a file here for each that has a name (its `load` makes it), and any folder with a questions file.

A folder goes through `folder.load`; docs/eval.md describes its files.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from edgevlm.evaluation.datasets.base import Case, Dataset, DatasetOptions
from edgevlm_runtime.errors import EdgeVLMError

NAMED = ("inspection",)
"""Data sets that come with edgevlm; each is a file in this package."""

__all__ = ["NAMED", "Case", "Dataset", "DatasetOptions", "load_dataset"]


def load_dataset(name: str, options: DatasetOptions) -> Dataset:
    """The data set called `name`, or in the folder `name`.

    Raises `EdgeVLMError` when there is none, when its questions cannot be read, or when `options` do not fit it.
    """
    kind = name if name in NAMED else "folder"
    if kind == "folder" and not Path(name).is_dir():
        raise EdgeVLMError(f"no such data set: {name}: pass {', '.join(NAMED)}, or a folder with questions.jsonl")
    dataset: Dataset = import_module(f"{__name__}.{kind}").load(name, options)
    return dataset
