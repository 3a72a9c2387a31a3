"""A request as the runtime takes it: messages with pictures in them, and how to answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgevlm.serve.fields import AsObject, AsSchema, ChatMessage, ChatRequest, ImagePart, TextPart
from edgevlm.serve.pictures.bring import MOST_PICTURES, Pictures
from edgevlm.serve.refusals import bad
from edgevlm_runtime.asking.choices import check_choices
from edgevlm_runtime.bundle.values import generation_options
from edgevlm_runtime.errors import EdgeVLMError, FormError, one_line
from edgevlm_runtime.form import Form
from edgevlm_runtime.model import VLM

SYSTEM, DEVELOPER = "system", "developer"
SEEDS = 2**63


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to answer, and how. Pictures are still to be brought."""

    generation: dict[str, Any]
    """Fields of `GenerationOptions`."""
    choices: tuple[str, ...]
    """To weigh; none to generate."""
    weighing: dict[str, Any]
    """Fields of `ChoiceOptions`."""


def wanted(asked: ChatRequest, vlm: VLM) -> Wanted:
    """How to answer. Raises `Refusal` (400) for fields that contradict each other, or mean nothing to this bundle."""
    if asked.top_logprobs and not asked.logprobs:
        raise bad("top_logprobs needs logprobs: true", "top_logprobs")
    if asked.stream_options is not None and not asked.stream:
        raise bad("stream_options needs stream: true", "stream_options")
    if asked.choices_of is not None:
        return _weighing(asked)
    if asked.abstain_below is not None:
        raise bad("abstain_below needs choices_of", "abstain_below")
    generation = _generation(asked)
    try:
        generation_options(vlm.manifest.generation, generation)
    except EdgeVLMError as error:
        raise bad(one_line(error), None) from error
    return Wanted(generation, (), {})


def _weighing(asked: ChatRequest) -> Wanted:
    form = asked.response_format
    for name, given in (("logprobs", asked.logprobs), ("response_format", isinstance(form, AsObject | AsSchema))):
        if given:
            raise bad(f"choices_of generates nothing: leave out {name}", name)
    try:
        choices = check_choices(asked.choices_of or [])
    except EdgeVLMError as error:
        raise bad(one_line(error), "choices_of") from error
    return Wanted({}, choices, {} if asked.abstain_below is None else {"abstain_below": asked.abstain_below})


def _generation(asked: ChatRequest) -> dict[str, Any]:
    given = {
        "max_new_tokens": asked.max_completion_tokens or asked.max_tokens,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "top_k": asked.top_k,
        "repetition_penalty": asked.repetition_penalty,
        "seed": None if asked.seed is None else asked.seed % SEEDS,
        "stop": (asked.stop,) if isinstance(asked.stop, str) else asked.stop,
        "logprobs": bool(asked.logprobs),
        "top_logprobs": asked.top_logprobs,
        "form": _form(asked),
    }
    return {name: value for name, value in given.items() if value is not None}


def _form(asked: ChatRequest) -> Form | None:
    how = asked.response_format
    if isinstance(how, AsObject):
        return Form.json()
    if not isinstance(how, AsSchema):
        return None
    try:
        return Form.json(how.json_schema.schema)
    except FormError as error:
        raise bad(one_line(error), "response_format", "invalid_response_format") from error


async def messages_of(asked: ChatRequest, pictures: Pictures, system_prompt: str | None) -> list[dict[str, Any]]:
    """The conversation, with its pictures. `system_prompt`: the bundle's own, where the client gives none. Raises
    `Refusal` (400)."""
    parts = [part for message in asked.messages for part in _parts(message)]
    if sum(isinstance(part, ImagePart) for part in parts) > MOST_PICTURES:
        raise bad(f"too many pictures: {MOST_PICTURES} at most", "messages", "too_many_images")
    found = [
        {"role": _role(message), "content": [await _told(part, pictures) for part in _parts(message)]}
        for message in asked.messages
    ]
    own = {"role": SYSTEM, "content": [{"type": "text", "text": system_prompt}]}
    return [own, *found] if system_prompt and all(one["role"] != SYSTEM for one in found) else found


def _role(message: ChatMessage) -> str:
    return SYSTEM if message.role == DEVELOPER else message.role


def _parts(message: ChatMessage) -> list[TextPart | ImagePart]:
    return [TextPart(message.content)] if isinstance(message.content, str) else message.content


async def _told(part: TextPart | ImagePart, pictures: Pictures) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text, "literal": True}
    place = part.image_url
    return {"type": "image", "image": await pictures.get(place if isinstance(place, str) else place.url)}
