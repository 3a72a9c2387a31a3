"""Load a checkpoint's image processor, tokenizer and chat template, each on its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedConfig

from edgevlm_export.checkpoints import door
from edgevlm_export.families import known_family
from edgevlm_export.preprocessing import sentencepiece_model, tokenizer_trial
from edgevlm_export.preprocessing.chat_template import choose
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
    flat_image: str | None = None
    """What stands for an image where the template takes only strings; None where it takes parts."""
    turn_end: int | None = None
    """The token that the template writes after an answer, where it writes one."""
    template_given: bool = False
    """Whether the template is the user's, in place of the checkpoint's own."""


def load_processor(folder: Path, config: PreTrainedConfig, chat_template: str | None = None) -> CheckpointProcessor:
    """Read the processor files of a local checkpoint; nothing is downloaded and none of its code is run.

    `chat_template`: a text that stands in for the checkpoint's own. Raises `CheckpointError`, naming the file, when one
    is missing or cannot be read.
    """
    settings = _read("processor settings", folder, door.processor_settings)
    _need(folder, "image processor", ("preprocessor_config.json",), present="image_processor" in settings)
    _need(folder, "tokenizer", _TOKENIZER_FILES)
    image_processor = _read("image processor", folder, door.image_processor)
    tokenizer = _read("tokenizer", folder, _tokenizer)
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise CheckpointError(f"no tokenizer.json: {folder}: save the tokenizer in the form of the tokenizers library")
    family = known_family(config.model_type)
    if family is not None:
        tokenizer = family.prepare_tokenizer(tokenizer)
    own = _template(settings.get("chat_template")) or _template(tokenizer.chat_template)
    template = choose(folder, config, tokenizer, own, chat_template)
    return CheckpointProcessor(
        folder,
        image_processor,
        tokenizer,
        template.text,
        settings,
        template.flat_image,
        template.turn_end,
        template_given=chat_template is not None,
    )


def _template(value: str | dict[str, str] | None) -> str | None:
    """The default template where a checkpoint has several."""
    return value.get("default") if isinstance(value, dict) else value


def _need(folder: Path, what: str, files: tuple[str, ...], present: bool = False) -> None:
    if not present and not any((folder / file).is_file() for file in files):
        raise CheckpointError(f"no {what}: {folder}: {files[0]} is missing: copy it from the original checkpoint")


def _tokenizer(folder: Path) -> Any:
    """What transformers makes of the checkpoint's files, its native part tried in a process of its own first."""
    file = folder / "tokenizer.json"
    if file.exists():
        tokenizer_trial.check_file(file)
    model = sentencepiece_model.model_file(folder)
    tokenizer = door.tokenizer(folder) if model is None else sentencepiece_model.load(model)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and not file.exists():
        tokenizer_trial.check(backend.to_str().encode(), folder)
    return tokenizer


def _read(what: str, folder: Path, load: Callable[[Path], _T]) -> _T:
    try:
        return load(folder)
    except (KeyboardInterrupt, SystemExit, GeneratorExit, CheckpointError):
        raise
    except BaseException as error:  # transformers raises what the parsers under it raise; a panic is no Exception
        logger.debug("loading the %s failed", what, exc_info=True)
        raise CheckpointError(f"cannot read the {what}: {folder}: {reason(error)}") from error
