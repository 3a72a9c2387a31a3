"""The fields of a request. What OpenAI knows and this server does not do is refused by name; names that nobody knows
are ignored, as clients send their own."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from edgevlm.serve.refusals import bad
from edgevlm_runtime.errors import one_line

MOST_MESSAGES = 1000
MOST_STOPS = 16
MOST_TOP = 20
MOST_CHOICES = 100
LARGEST = 2**31 - 1
NOT_HERE: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "n": (1,),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
}
"""Fields of OpenAI's that would change the answer and are not supported, with values that ask for nothing."""
NOT_IN_MESSAGES = ("tool_calls", "function_call", "audio")
_AT = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")


class ImageUrl(Struct, frozen=True):
    """Where a picture is: a `data:` URI, a file below the folder that is allowed, an address where those are."""

    url: str
    detail: str | None = None
    """Ignored: a bundle has its own size."""


class TextPart(Struct, frozen=True, tag_field="type", tag="text"):
    """A text, taken letter by letter: control tokens written out in it are text."""

    text: str


class ImagePart(Struct, frozen=True, tag_field="type", tag="image_url"):
    """A picture."""

    image_url: ImageUrl | str


class ChatMessage(Struct, frozen=True):
    """One turn. "developer" is "system"."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart | ImagePart]


class JsonSchema(Struct, frozen=True):
    """A JSON schema that the answer follows, unless it is cut."""

    schema: dict[str, Any]
    name: str | None = None
    strict: bool | None = None
    """Ignored: it is always followed."""


class AsText(Struct, frozen=True, tag_field="type", tag="text"):
    """As the model likes."""


class AsObject(Struct, frozen=True, tag_field="type", tag="json_object"):
    """Any JSON object."""


class AsSchema(Struct, frozen=True, tag_field="type", tag="json_schema"):
    """JSON of a schema."""

    json_schema: JsonSchema


class StreamOptions(Struct, frozen=True):
    """For a stream."""

    include_usage: bool | None = None
    """Tell the tokens in a last event."""


Count = Annotated[int, Meta(ge=1, le=LARGEST)]
Share = Annotated[float, Meta(ge=0, le=1)]


class ChatRequest(Struct, frozen=True, kw_only=True):
    """`POST /v1/chat/completions`. A field that is null is as if it were not there."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MOST_MESSAGES)]
    model: str
    """The name of a bundle's folder."""
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    """The same; it wins. Default: the bundle's."""
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    """Default: the bundle's, greedy for most."""
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=LARGEST)] | None = None
    """Not OpenAI's."""
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    """Not OpenAI's."""
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=MOST_STOPS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MOST_TOP)] | None = None
    response_format: AsText | AsObject | AsSchema | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    choices_of: Annotated[list[str], Meta(min_length=2, max_length=MOST_CHOICES)] | None = None
    """Not OpenAI's: weigh these answers instead of generating one."""
    abstain_below: Share | None = None
    """For `choices_of`: no verdict when the likeliest is less probable."""


def read_request(body: bytes | bytearray) -> ChatRequest:
    """The request. Raises `Refusal` (400) that names the field."""
    try:
        data = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise bad(f"the body is not JSON: {one_line(error)}", None, "invalid_json") from error
    if not isinstance(data, dict):
        raise bad("the body must be a JSON object", None, "invalid_json")
    given = {name: value for name, value in data.items() if value is not None}
    _check_supported(given)
    try:
        return msgspec.convert(given, ChatRequest)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        said = one_line(error)
        at = _AT.search(said)
        where = at[1] if at else None
        what = _AT.sub("", said)
        raise bad(f"{where}: {what}" if where else what, where) from error


def _check_supported(given: dict[str, Any]) -> None:
    for name, neutral in NOT_HERE.items():
        if name in given and given[name] not in neutral:
            only = f": {neutral[0]!r} is all that it may be" if name == "n" else ": leave it out"
            raise bad(f"{name} is not supported by this server{only}", name, "unsupported_parameter")
    messages = given.get("messages")
    for place, message in enumerate(messages if isinstance(messages, list) else []):
        for name in NOT_IN_MESSAGES if isinstance(message, dict) else ():
            if message.get(name):
                where = f"messages[{place}].{name}"
                raise bad(f"{where} is not supported by this server: leave it out", where, "unsupported_parameter")
