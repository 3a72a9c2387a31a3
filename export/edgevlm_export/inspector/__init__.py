"""`inspector`: the small LLaVA that ships with the project, its weights, its training and its evaluation.

Importing this package imports neither torch nor transformers.
"""

from __future__ import annotations

from pathlib import Path


def checkpoint_path() -> Path:
    """The folder of the shipped checkpoint, loadable by ``transformers`` alone."""
    return Path(__file__).parent / "checkpoint"
