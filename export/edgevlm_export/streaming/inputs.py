"""What a reference is asked and what it says, and how a conversation becomes a model's arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import ProcessorMixin

from edgevlm_export.families import get_family
from edgevlm_export.finite import is_finite
from edgevlm_runtime.errors import ExportError
from edgevlm_runtime.images import open_image, to_rgb

ImageFile = str | os.PathLike[str] | Image.Image
Message = Mapping[str, Any]
Array = NDArray[np.float32]
Ids = NDArray[np.int64]
Inputs = dict[str, torch.Tensor]

OF_TEXT = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
_ANY_QUESTION = "What is this?"


@dataclass(frozen=True, slots=True)
class Forced:
    """A question with an answer that somebody gave; the reference reads both and says what it would have said."""

    question: str | Sequence[Message]
    images: tuple[ImageFile, ...]
    answer: tuple[int, ...]
    """Token ids, none of them an image's."""


@dataclass(frozen=True, slots=True)
class Read:
    """What the reference makes of a `Forced`."""

    token_ids: Ids
    """[S]: the prompt as the reference's processor writes it, and the answer."""
    rows: Ids
    """[R]: positions that hold text, in order."""
    logits: Array
    """[R, vocab], of these positions."""
    own: tuple[int, ...]
    """The reference's own greedy answer, as far as it is known."""
    whole: bool
    """Whether `own` is all of it. An answer that was read along is known up to the first token that differs."""


def model_inputs(
    processor: Any,
    question: str | Sequence[Message],
    images: Sequence[ImageFile] = (),
    flat_image: str | None = None,
) -> Inputs:
    """Arguments of the model for a conversation, the generation prompt at its end.

    `question`: a text, put after the images in one user message, or a whole conversation. `flat_image`: what stands for
    an image where the chat template takes content as one string only.
    """
    opened = [_picture(processor, image) for image in images]
    messages = _conversation(question, len(opened))
    if processor.chat_template is None:
        return _of_a_text(processor, messages, opened)
    text = _rendered(processor, _plain(messages, flat_image))
    bos = processor.tokenizer.bos_token
    special = {"add_special_tokens": False} if bos is not None and text.startswith(bos) else {}
    return dict(processor(text=text, images=opened or None, return_tensors="pt", **special))


def _rendered(processor: Any, messages: list[dict[str, Any]]) -> str:
    """What the chat template makes of them. A system prompt whose list of parts it prints as a list is given as a text,
    as the published usage of such models has it."""
    text: str = ProcessorMixin.apply_chat_template(processor, messages, add_generation_prompt=True, tokenize=False)
    system = [one for one in messages if one["role"] == "system" and isinstance(one["content"], list)]
    printed = [one for one in system if str(one["content"]) in text]
    for one in printed:
        one["content"] = "".join(part["text"] for part in one["content"])
    return _rendered(processor, messages) if printed else text


def _of_a_text(processor: Any, messages: Sequence[Message], opened: list[Image.Image]) -> Inputs:
    """Arguments for one question, by a processor that writes the prompt around a text itself (PaliGemma's).

    It takes no text without an image: such a prompt is what it writes otherwise, without the image.
    """
    (message,) = messages
    text = _content(message["content"], processor.image_token)
    if opened:
        inputs = dict(processor(text=text, images=opened, return_tensors="pt"))
        del inputs["labels"]  # for training
        return inputs
    whole = f"{processor.tokenizer.bos_token}{text}\n"
    options = {"add_special_tokens": False, "return_token_type_ids": True}
    return dict(processor.tokenizer(whole, return_tensors="pt", **options))


def pixel_inputs(processor: Any, image: ImageFile, flat_image: str | None = None) -> Inputs:
    """The arguments of `get_image_features` for one image."""
    return without_text(model_inputs(processor, _ANY_QUESTION, [image], flat_image))


def without_text(inputs: Inputs) -> Inputs:
    """What of them is about images."""
    return {name: value for name, value in inputs.items() if name not in OF_TEXT}


def with_continuation(inputs: Inputs, continuation: Sequence[int], model_type: str) -> Inputs:
    """`inputs` of a model of that type with tokens behind the prompt."""
    suffix = get_family(model_type).attention == "prefix"  # where token types tell the answer from the prompt
    ones = {"attention_mask", "token_type_ids"} if suffix else {"attention_mask"}
    more = torch.tensor([list(continuation)], dtype=inputs["input_ids"].dtype)
    longer = dict(inputs)
    for name in OF_TEXT:
        if name in inputs:
            fill = more if name == "input_ids" else torch.full_like(more, int(name in ones))
            longer[name] = torch.cat([inputs[name], fill], dim=1)
    return longer


def encode_image(model: Any, pixels: Inputs) -> tuple[Array, Array]:
    """(vision features [rows, width] as the projector gets them, embeddings [tokens, row width]), both in prompt order.

    Behind the embeddings stand what DeepStack adds to the decoder's layers, in order.
    """
    given: list[torch.Tensor] = []
    projector = model.get_submodule(get_family(model.config.model_type).projector_module)
    hook = projector.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    try:
        output = model.get_image_features(**pixels, return_dict=True)
    finally:
        hook.remove()
    width = model.get_input_embeddings().weight.shape[1]
    parts = [output.pooler_output, *(getattr(output, "deepstack_features", None) or ())]
    embeddings = torch.cat([torch.cat([rows.reshape(-1, width) for rows in part]) for part in parts], dim=-1)
    features = torch.cat([rows.reshape(-1, rows.shape[-1]) for rows in given])
    return numbers(features, "vision features"), numbers(embeddings, "image embeddings")


def numbers(values: torch.Tensor, what: str) -> Array:
    """As a float32 array. Raises `ExportError` when the model overflows: there is nothing to compare a bundle with."""
    wide = values.float()
    if not is_finite(wide):
        raise ExportError(f"PyTorch's own {what} are no finite numbers: the checkpoint overflows in {values.dtype}")
    made: Array = wide.numpy()
    return made


def text_rows(token_ids: Ids, image_token_id: int) -> Ids:
    """Positions that hold text: what is predicted within an image is never used."""
    return np.flatnonzero(token_ids != image_token_id)


def _picture(processor: Any, image: ImageFile) -> Image.Image:
    """The picture that the runtime sees, for the processor to convert to RGB itself where it does that."""
    picture = open_image(image)
    return picture if getattr(processor.image_processor, "do_convert_rgb", False) else to_rgb(picture)


def _conversation(question: str | Sequence[Message], images: int) -> Sequence[Message]:
    if not isinstance(question, str):
        return question
    parts = [*({"type": "image"} for _ in range(images)), {"type": "text", "text": question}]
    return [{"role": "user", "content": parts}]


def _plain(messages: Sequence[Message], flat_image: str | None) -> list[dict[str, Any]]:
    """A copy that the processor may change."""
    return [{"role": message["role"], "content": _content(message["content"], flat_image)} for message in messages]


def _content(content: str | Sequence[Message], flat_image: str | None) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    if flat_image is None:
        return [dict(part) for part in content]
    return "".join(flat_image if part["type"] == "image" else part["text"] for part in content)
