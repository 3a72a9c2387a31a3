"""A tokenizer that is stored as a SentencePiece model alone (`tokenizer.model`), as in the first Llamas.

transformers converts it, with the package sentencepiece. The class that it chooses for LLaVA cuts a text's first word
otherwise than SentencePiece, and so than in training; the class that the checkpoint names does not. Which conversion
is right, SentencePiece itself says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgevlm_export.checkpoints import door, json_files
from edgevlm_runtime.errors import CheckpointError
from edgevlm_runtime.installing import pip_install

PACKAGE = "sentencepiece"
CONFIG = "tokenizer_config.json"
FIRST = "LlamaTokenizer"
"""Of checkpoints that name no class."""
NAMES = ("tokenizer.model", "spiece.model")
SAMPLES = (
    "Is there a scratch on this part?",
    "USER: Describe the image.\nASSISTANT: No, 3 of 12 are missing (see below).",
    "naïve 9 µm  äöü 図面 🙂",
)
"""Texts that the two must cut alike."""


def model_file(folder: Path) -> Path | None:
    """The SentencePiece model of a checkpoint that has no other tokenizer; else None."""
    if (folder / "tokenizer.json").exists():
        return None
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def load(file: Path) -> Any:
    """transformers' tokenizer of the model in `file`.

    Raises `CheckpointError` where the package is missing, and where no conversion gives SentencePiece's own tokens.
    """
    if find_spec(PACKAGE) is None:  # transformers would take the file for another kind, and name the wrong package
        raise CheckpointError(
            f"the tokenizer is a SentencePiece model, which takes the package {PACKAGE} to convert: {file}: "
            f"{pip_install(PACKAGE)}"
        )
    own = import_module(PACKAGE).SentencePieceProcessor(model_file=str(file))
    for convert in _conversions(file.parent):
        tokenizer = convert()
        if all(_ids(tokenizer, text) == own.encode(text) for text in SAMPLES):
            return tokenizer
    raise CheckpointError(
        f"transformers makes other tokens of the SentencePiece model than SentencePiece itself: {file}: save the "
        "tokenizer as tokenizer.json with the version of transformers that the checkpoint was made with"
    )


def _conversions(folder: Path) -> Iterator[Callable[[], Any]]:
    yield lambda: door.tokenizer(folder)
    stated = json_files.read(folder / CONFIG).get("tokenizer_class") if (folder / CONFIG).is_file() else None
    yield lambda: door.tokenizer_as(stated or FIRST, folder)


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
