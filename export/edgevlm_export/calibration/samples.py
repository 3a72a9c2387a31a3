"""What the decoder reads while it is calibrated: English from Python's reference manual, or the caller's text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from edgevlm_runtime.errors import ExportError

SEQUENCES = 16
LENGTH = 256
"""Tokens of a sequence, fewer where the context is shorter."""
SUFFIXES = frozenset({".txt", ".md", ".jsonl", ".json"})


def manual() -> str:
    """Prose about programming, present wherever Python is."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[key] for key in sorted(topics))


def folder_text(folder: Path) -> str:
    """Every text file of a folder, in order of names. Raises `ExportError` when there is none or one cannot be read."""
    if not folder.is_dir():
        raise ExportError(f"no such calibration folder: {folder}: pass a folder with text files")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    try:
        text = "\n\n".join(path.read_text(encoding="utf-8") for path in files).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"unreadable calibration file in {folder}: {error}: pass text files in UTF-8") from error
    if not text:
        raise ExportError(f"empty calibration folder: {folder}: put text files ({', '.join(sorted(SUFFIXES))}) there")
    return text


def sample(ids: Sequence[int], context: int) -> Tensor:
    """Token ids [sequences, length], spread evenly over a text's. Raises `ExportError` when it is too short for one."""
    length = min(LENGTH, context)
    count = min(SEQUENCES, len(ids) // length)
    if count < 1:
        raise ExportError(f"calibration text too short: {len(ids)} tokens: at least {length} are needed")
    stride = len(ids) // count
    return torch.tensor([ids[start * stride : start * stride + length] for start in range(count)])
