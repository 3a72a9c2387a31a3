"""Load a checkpoint's image processor, tokenizer and chat template, each on its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from transformers import AutoImageProcessor, AutoTokenizer
from transformers.processing_utils import ProcessorMixin

from edgevlm_runtime.errors import CheckpointError, reason

logger = logging.getLogger(__name__)

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
"""With none of them, transformers can make up a tokenizer of three tokens without a word."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class CheckpointProcessor:
    """What makes up a Hugging Face processor."""

    folder: Path
    image_processor: Any
    """PIL backend: the reference for pixel parity."""
    tokenizer: Any
    """A tokenizer on the `tokenizers` library."""
    chat_template: str
    settings: dict[str, Any]
    """`processor_config.json`: arguments of the joint processor."""


def load_processor(folder: Path, chat_template: str | None = None) -> CheckpointProcessor:
    """Read the processor files of a local checkpoint; nothing is downloaded and none of its code is run.

    `chat_template` stands in for the checkpoint's own. Raises `CheckpointError`, naming the file, when one is missing
    or cannot be read.
    """
    settings: dict[str, Any] = _read(
        "processor settings", folder, lambda: ProcessorMixin.get_processor_dict(folder, local_files_only=True)[0]
    )
    _need(folder, "image processor", ("preprocessor_config.json",), present="image_processor" in settings)
    _need(folder, "tokenizer", _TOKENIZER_FILES)
    image_processor = _read(
        "image processor",
        folder,
        lambda: AutoImageProcessor.from_pretrained(
            folder, backend="pil", local_files_only=True, trust_remote_code=False
        ),
    )
    tokenizer = _read(
        "tokenizer",
        folder,
        lambda: AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
    )
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise CheckpointError(f"no tokenizer.json: {folder}: save the tokenizer in the form of the tokenizers library")
    template = chat_template or _template(settings.get("chat_template")) or _template(tokenizer.chat_template)
    if template is None:
        raise CheckpointError(f"no chat template: {folder}: put one into chat_template.jinja")
    return CheckpointProcessor(folder, image_processor, tokenizer, template, settings)


def _template(value: str | dict[str, str] | None) -> str | None:
    """The default template where a checkpoint has several."""
    return value.get("default") if isinstance(value, dict) else value


def _need(folder: Path, what: str, files: tuple[str, ...], present: bool = False) -> None:
    if not present and not any((folder / file).is_file() for file in files):
        raise CheckpointError(f"no {what}: {folder}: {files[0]} is missing: copy it from the original checkpoint")


def _read(what: str, folder: Path, load: Callable[[], _T]) -> _T:
    try:
        return load()
    except Exception as error:  # transformers raises what the parsers under it raise
        logger.debug("loading the %s failed", what, exc_info=True)
        raise CheckpointError(f"cannot read the {what}: {folder}: {reason(error)}") from error
