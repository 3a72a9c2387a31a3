"""Which chat template a checkpoint has, in what form it takes content, and how it ends an answer.

The user's own comes first, then the checkpoint's, then the one that goes with the family's published checkpoints. Most
take content as a list of parts. A language model's own template takes strings alone: where the family's published usage
writes an image into the string, so do we (`Family.after_image`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from edgevlm_export import chat_templates
from edgevlm_export.families import get_family, known_family
from edgevlm_runtime.bundle.manifest import PromptFormat
from edgevlm_runtime.errors import CheckpointError, PromptError, UnsupportedModel
from edgevlm_runtime.text.prompt import PromptEncoder
from edgevlm_runtime.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

HINT = f"pass --chat-template with a file or one of {', '.join(chat_templates.NAMES)}"
_PROBE = 'What\'s on "this" part?\nA gear, or a cog?'
"""Printed as part of a list, its quotes or its line break would be escaped."""
_ANSWER = "Zwei gears."
_NO_IMAGE = "\0"


@dataclass(frozen=True, slots=True)
class ChosenTemplate:
    """A template and the form in which it takes content."""

    text: str
    flat_image: str | None = None
    """What stands for an image where the template takes only strings; None where it takes parts."""
    turn_end: int | None = None
    """The token that the template writes after an answer, None where it writes none or something longer."""


def choose(
    folder: Path, config: PreTrainedConfig, tokenizer: Any, own: str | None, given: str | None
) -> ChosenTemplate:
    """The template of a checkpoint. `own`: the one in its folder; `given`: the user's; both as text.

    Raises `CheckpointError` when there is none. One that shows no image in either form is returned as it is:
    whoever puts it to use says so.
    """
    family = known_family(config.model_type)
    if family is not None and family.plain_prompts:
        return _plain(folder, config, own, given)
    text = given or own or _published(folder, config, tokenizer)
    if text is None:
        raise CheckpointError(f"no chat template: {folder}: put one into chat_template.jinja, or {HINT}")
    image = shown_image(config, tokenizer)
    after = None if family is None else family.after_image
    for flat in (None, None if after is None else f"{image}{after}"):
        if image is not None and _shows(text, tokenizer, image, flat):
            return ChosenTemplate(text, flat, _turn_end(text, flat, tokenizer))
    return ChosenTemplate(text)


def shown_image(config: PreTrainedConfig, tokenizer: Any) -> str | None:
    """The token by which the family's chat templates show an image; None where the tokenizer has none such."""
    family = known_family(config.model_type)
    id_ = config.image_token_id if family is None else family.template_image(config)
    known = isinstance(id_, int) and 0 <= id_ < len(tokenizer)
    return str(tokenizer.convert_ids_to_tokens(id_)) if known else None


def special_tokens(tokenizer: Any) -> dict[str, Any]:
    """Names that a template may use, with their tokens, as transformers gives them."""
    return dict(tokenizer.special_tokens_map)


def _plain(folder: Path, config: PreTrainedConfig, own: str | None, given: str | None) -> ChosenTemplate:
    """The template that writes what the family's processor in transformers makes of a text, in place of any other.

    Raises `UnsupportedModel` for one of the user's: the processor would not know of it.
    """
    name = get_family(config.model_type).published_template(config)
    assert name is not None
    if given not in {None, chat_templates.named(name)}:
        raise UnsupportedModel(
            f"{config.model_type} has no chat: transformers writes its prompts without a template: leave out "
            "--chat-template"
        )
    if own is not None:
        logger.warning("the chat template in %s is not used: transformers writes %s's prompts", folder, name)
    return ChosenTemplate(chat_templates.named(name))


def _turn_end(template: str, flat_image: str | None, tokenizer: Any) -> int | None:
    """See `ChosenTemplate`. A token that opens an answer ends none, in templates that open the next one unasked; one
    that stands alone between all messages does.
    """
    encoder = _encoder(template, tokenizer, _NO_IMAGE, flat_image)
    messages = [_message("user", _PROBE), _message("assistant", _ANSWER)]
    try:
        before, found, after = encoder.render(messages, add_generation_prompt=False).rpartition(_ANSWER)
    except PromptError:
        return None
    between, after = before.rpartition(_PROBE)[2].strip(), after.lstrip()
    ids = encoder.tokenizer.encode(after, bos_token="")
    token = tokenizer.convert_ids_to_tokens(ids[0]) if found and ids else None
    if token not in encoder.tokenizer.control_tokens or not after.startswith(token):
        return None
    return None if between.endswith(token) and between != token else int(ids[0])


def _published(folder: Path, config: PreTrainedConfig, tokenizer: Any) -> str | None:
    """The template that goes with the family's published checkpoints, where this is one of them."""
    family = known_family(config.model_type)
    name = None if family is None else family.published_template(config)
    if name is None or not chat_templates.control_tokens(name) <= set(tokenizer.get_added_vocab()):
        return None
    logger.warning("no chat template in %s: %s is taken, as its published checkpoints have it", folder, name)
    return chat_templates.named(name)


def _shows(template: str, tokenizer: Any, image: str, flat_image: str | None) -> bool:
    """Whether the template shows images and texts, together and texts alone."""
    parts = [{"type": "image"}, {"type": "text", "text": _PROBE}]
    try:
        encoder = _encoder(template, tokenizer, image, flat_image)
        encoder.render([{"role": "user", "content": parts}])
        encoder.render([{"role": "user", "content": parts[1:]}])
    except PromptError:
        return False
    return True


def _encoder(template: str, tokenizer: Any, image: str, flat_image: str | None) -> PromptEncoder:
    special = special_tokens(tokenizer)
    known = PromptFormat(
        chat_template="",
        tokenizer="",
        image_token=image,
        image_token_id=0,
        bos_token=special.pop("bos_token", None),
        eos_token=special.pop("eos_token", None),
        template_variables=special,
        flat_image=flat_image,
    )
    return PromptEncoder(known, template, Tokenizer(tokenizer.backend_tokenizer))


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}
