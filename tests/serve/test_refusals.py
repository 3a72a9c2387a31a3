"""What is refused, with which status, and in OpenAI's words: as its client raises it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from PIL import Image

from edgevlm.serve.fields import NOT_HERE
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.chatting import client, encoded, inline, server, user

Picture = Callable[[int], Image.Image]
KEY = "s3cret"
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def raw(address: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=address, trust_env=False, timeout=60) as found:
        yield found


def post(raw: httpx2.Client, **fields: Any) -> httpx2.Response:
    return raw.post("/v1/chat/completions", json={"model": "tiny", "messages": HELLO, "max_tokens": 2, **fields})


def bomb() -> bytes:
    """A small file of 40 million pixels."""
    file = io.BytesIO()
    Image.new("1", (8000, 5000)).save(file, "PNG")
    return file.getvalue()


NESTED: Any = json.loads("[" * 200 + "]" * 200)
BAD: list[tuple[dict[str, Any], str | None, str]] = [
    ({"messages": []}, "messages", "length >= 1"),
    ({"messages": "hello"}, "messages", "Expected `array`"),
    ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role", "tool"),
    ({"messages": [{"role": "user"}]}, "messages[0]", "content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        "messages[0].content[0].type",
        "audio",
    ),
    ({"messages": [{"role": "user", "content": NESTED}]}, "messages[0].content[0]", ""),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, None, "not JSON"),
    ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, "messages[0].tool_calls", "supported"),
    ({"max_tokens": 0}, "max_tokens", ">= 1"),
    ({"max_tokens": 10**30}, "max_tokens", ""),
    ({"temperature": -1}, "temperature", ">= 0"),
    ({"top_p": 0}, "top_p", "> 0"),
    ({"seed": "x"}, "seed", "int"),
    ({"stop": [""]}, None, "stop"),
    ({"stop": ["a"] * 17}, "stop", "<= 16"),
    ({"top_logprobs": 2}, "top_logprobs", "logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "<= 20"),
    ({"stream_options": {"include_usage": 3}}, "stream_options.include_usage", "bool"),
    ({"response_format": {"type": "yaml"}}, "response_format.type", "yaml"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}}, "response_format", "form"),
    ({"choices_of": ["a"]}, "choices_of", ">= 2"),
    ({"choices_of": ["a", "a "]}, "choices_of", "differ"),
    ({"choices_of": ["a", "b"], "logprobs": True}, "logprobs", "choices_of"),
    ({"choices_of": ["a", "b"], "response_format": {"type": "json_object"}}, "response_format", "choices_of"),
    ({"choices_of": ["a", "</s>"]}, "messages", "special token"),
    ({"abstain_below": 0.5}, "abstain_below", "choices_of"),
    ({"messages": [{"role": "user", "content": "x" * 5000}]}, "messages", "tokens"),
    ({"messages": [user("a", "data:image/png;base64,####")]}, "messages", "base64"),
    ({"messages": [user("a", "data:image/png,abc")]}, "messages", "data: URI"),
    ({"messages": [user("a", b"no picture")]}, "messages", "not an image"),
    ({"messages": [user("a", bomb())]}, "messages", "too many pixels"),
    ({"messages": [user("a", "https://example.org/a.png")]}, "messages", "addresses are not allowed"),
    ({"messages": [user("a", "file:///etc/passwd")]}, "messages", "files are not allowed"),
    ({"messages": [user("a", "/etc/passwd")]}, "messages", "files are not allowed"),
    ({"messages": [user("a", *["data:image/png;base64,"] * 17)]}, "messages", "too many pictures"),
]


@pytest.mark.parametrize(("fields", "param", "says"), BAD)
@pytest.mark.parametrize("stream", [False, True])
def test_bad_fields(raw: httpx2.Client, fields: dict[str, Any], param: str | None, says: str, stream: bool) -> None:
    answer = raw.post(
        "/v1/chat/completions",
        content=json.dumps({"model": "tiny", "messages": HELLO, "stream": stream, **fields}),
    )
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert says in error["message"]
    assert error["code"]
    assert "\n" not in error["message"]


ASKING: dict[str, Any] = {
    "tools": [{"type": "function", "function": {"name": "a"}}],
    "tool_choice": "required",
    "functions": [{"name": "a"}],
    "function_call": {"name": "a"},
    "n": 2,
    "logit_bias": {"3": 5},
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "modalities": ["text", "audio"],
    "audio": {"voice": "a"},
    "prediction": {"type": "content", "content": "a"},
    "web_search_options": {},
    "reasoning_effort": "high",
    "verbosity": "low",
}


@pytest.mark.parametrize("name", NOT_HERE)
def test_what_openai_has_and_this_server_has_not(raw: httpx2.Client, name: str) -> None:
    refused = post(raw, **{name: ASKING[name]})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == name
    assert f"{name} is not supported" in refused.json()["error"]["message"]
    for neutral in (None, *NOT_HERE[name]):
        assert post(raw, **{name: neutral}).status_code == 200


def test_names_that_nobody_knows_are_ignored(raw: httpx2.Client) -> None:
    assert post(raw, my_own={"a": 1}, user="somebody", metadata={"a": "b"}, store=False).status_code == 200


def test_options_of_streams_are_for_streams(raw: httpx2.Client) -> None:
    answer = post(raw, stream_options={"include_usage": True})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "stream_options")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"\xff", b"[" * 100_000, b'{"model": "tiny"}'])
def test_bodies_that_are_none(raw: httpx2.Client, body: bytes) -> None:
    answer = raw.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_unknown_models(asking: openai.OpenAI, raw: httpx2.Client) -> None:
    with pytest.raises(openai.NotFoundError, match="there is tiny") as caught:
        asking.chat.completions.create(model="gpt-4o", messages=HELLO)  # type: ignore[arg-type]
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        asking.models.retrieve("a/b")
    strange = {"model": "\ud800\n" + "x" * 9000, "messages": HELLO}
    answer = raw.post("/v1/chat/completions", content=json.dumps(strange))
    assert answer.status_code in (400, 404)
    assert len(answer.content) < 1000


def test_other_addresses_and_methods(raw: httpx2.Client) -> None:
    for method, path, status in (
        ("GET", "/v1/completions", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("GET", "/v1/models/", 404),
    ):
        answer = raw.request(method, path)
        assert (answer.status_code, set(answer.json())) == (status, {"error"}), path
        assert "allow" in answer.headers or status == 404


def test_another_sites_page_gets_nothing(raw: httpx2.Client) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}):
        answer = raw.post("/v1/chat/completions", content=b"{}", headers=headers)
        assert answer.status_code == 403
        assert answer.json()["error"]["type"] == "permission_error"


def test_bodies_and_pictures_that_are_too_large(tiny: Path, picture: Picture) -> None:
    with server(tiny, max_body=0.01) as (address, _), client(address) as asking:
        large = [user("a", encoded(Image.effect_noise((200, 200), 90)))]
        with pytest.raises(openai.APIStatusError) as caught:
            asking.chat.completions.create(model="tiny", messages=large)  # type: ignore[arg-type]
        assert (caught.value.status_code, caught.value.code) == (413, "too_large")
        with httpx2.Client(base_url=address, trust_env=False, timeout=60) as raw:
            unannounced = raw.post("/v1/chat/completions", content=(b" " * 1000 for _ in range(100)))
            assert unannounced.status_code == 413
        ok = asking.chat.completions.create(model="tiny", messages=[user("a", picture(1))], max_tokens=2)  # type: ignore[list-item]
        assert ok.choices


def test_keys(tiny: Path) -> None:
    with server(tiny, tokens=(KEY, "another")) as (address, _):
        for wrong in ("S3cret", f"{KEY}x", KEY[:-1], "ümlaut"):
            answer = httpx2.get(
                f"{address}v1/models", headers={"Authorization": f"Bearer {wrong}".encode()}, trust_env=False
            )
            assert answer.status_code == 401, wrong
            assert answer.headers["www-authenticate"] == "Bearer"
        with client(address, "wrong") as asking, pytest.raises(openai.AuthenticationError) as caught:
            asking.chat.completions.create(model="tiny", messages=HELLO)  # type: ignore[arg-type]
        assert caught.value.code == "invalid_api_key"
        for right in (KEY, "another"):
            with client(address, right) as asking:
                assert asking.chat.completions.create(model="tiny", messages=HELLO, max_tokens=2)  # type: ignore[arg-type]
        assert httpx2.get(f"{address}metrics", trust_env=False).status_code == 401
        basic = {"Authorization": f"Basic {KEY}"}
        assert httpx2.get(f"{address}v1/models", headers=basic, trust_env=False).status_code == 401
        assert httpx2.get(f"{address}openapi.json", trust_env=False).status_code == 401
        assert httpx2.get(f"{address}ready", trust_env=False).text == "ready\n"


def test_what_others_reach_needs_a_key(tiny: Path) -> None:
    with pytest.raises(EdgeVLMError, match="give it a token"), server(tiny, host="0.0.0.0"):
        pass
    with pytest.raises(EdgeVLMError, match="bad value for token"), server(tiny, tokens=("two words",)):
        pass


def test_two_bundles_of_one_name(tiny: Path) -> None:
    with pytest.raises(EdgeVLMError, match="two bundles are named tiny"), server(tiny, tiny):
        pass


def test_pictures_are_given_as_they_are(asking: openai.OpenAI, picture: Picture) -> None:
    """Escaped data, and an address that is a text alone."""
    place = inline(picture(1))
    said = [
        asking.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": [{"type": "image_url", "image_url": one}]}],  # type: ignore[list-item]
            max_tokens=6,
        )
        .choices[0]
        .message.content
        for one in (place, {"url": place, "detail": "low"}, place.replace("+", "%2B").replace("=", "%3D"))
    ]
    assert len(set(said)) == 1
