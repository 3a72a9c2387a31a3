"""Whole conversations over a few KV caches: the answers of sessions and chats, and as little computed as in them."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from edgevlm_runtime import VLM
from edgevlm_runtime.asking.pictures import PreparedPictures
from edgevlm_runtime.errors import EdgeVLMError, PromptError
from edgevlm_runtime.pipeline import Pipeline

Picture = Callable[[int], Image.Image]


def user(text: str, *images: Image.Image) -> dict[str, Any]:
    return {
        "role": "user",
        "content": [*({"type": "image", "image": one} for one in images), {"type": "text", "text": text}],
    }


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text, "literal": True}]}


def test_one_turn_is_a_sessions(vlm: VLM, picture: Picture) -> None:
    for number in range(4):
        answer = vlm.conversations(2).ask([user("a scratch?", picture(number))], max_new_tokens=8)
        wanted = vlm.ask(picture(number), "a scratch?", max_new_tokens=8)
        assert answer.token_ids == wanted.token_ids
        assert answer.image_tokens == wanted.image_tokens > 0


def test_turns_are_a_chats(vlm: VLM, picture: Picture) -> None:
    conversations = vlm.conversations(1)
    with vlm.chat(picture(1)) as chat:
        first, second = chat.ask("hello", max_new_tokens=6), chat.ask("and then?", images=picture(2), max_new_tokens=6)
    one = conversations.ask([user("hello", picture(1))], max_new_tokens=6)
    two = conversations.ask(
        [user("hello", picture(1)), said(one.text), user("and then?", picture(2))], max_new_tokens=6
    )
    assert (one.token_ids, two.token_ids) == (first.token_ids, second.token_ids)
    assert two.prefix_tokens_reused == second.prefix_tokens_reused


def test_a_picture_asked_again_costs_a_second_question(vlm: VLM, picture: Picture) -> None:
    conversations = vlm.conversations(3)
    with vlm.session(picture(1)) as session:
        session.ask("a?", max_new_tokens=4)
        second = session.ask("b, then?", max_new_tokens=4)
    for number in (1, 2, 3):
        conversations.ask([user("a?", picture(number))], max_new_tokens=4)
    for number in (2, 3, 1):
        again = conversations.ask([user("b, then?", picture(number))], max_new_tokens=4)
        assert again.prefix_tokens_reused == second.prefix_tokens_reused
        assert again.image_cache == "hit"


def test_the_least_recently_used_goes(vlm: VLM, picture: Picture) -> None:
    conversations = vlm.conversations(2)
    for number in (1, 2, 1, 3):  # 2 has to go
        conversations.ask([user("what is it?", picture(number))], max_new_tokens=4)
    kept = conversations.ask([user("what is it?", picture(1))], max_new_tokens=4).prefix_tokens_reused
    lost = conversations.ask([user("what is it?", picture(2))], max_new_tokens=4).prefix_tokens_reused
    assert kept > lost


def test_choices(vlm: VLM, picture: Picture) -> None:
    choice = vlm.conversations(1).choose([user("is it?", picture(1))], ["yes", "no"])
    with vlm.session(picture(1)) as session:
        assert choice.probabilities == pytest.approx(session.choose("is it?", ["yes", "no"]).probabilities, abs=1e-6)


def test_streams_end_early_and_leave_their_cache(vlm: VLM, picture: Picture) -> None:
    conversations = vlm.conversations(1)
    whole = conversations.ask([user("tell", picture(1))], max_new_tokens=12)
    for _ in range(3):
        with conversations.stream([user("tell", picture(1))], max_new_tokens=12) as stream:
            next(iter(stream))
            stream.cancel()
            list(stream)
            assert stream.answer.finish_reason == "cancelled"
            assert whole.text.startswith(stream.answer.text)
        with conversations.stream([user("tell", picture(1))], max_new_tokens=12) as left:
            next(iter(left))
    assert conversations.ask([user("tell", picture(1))], max_new_tokens=12).token_ids == whole.token_ids


def test_many_threads_over_few_caches(vlm: VLM, picture: Picture) -> None:
    conversations = vlm.conversations(2)
    wanted = {number: vlm.ask(picture(number), "what?", max_new_tokens=5).token_ids for number in range(5)}
    wrong: list[int] = []

    def client(number: int) -> None:
        for _ in range(6):
            answer = conversations.ask([user("what?", picture(number))], max_new_tokens=5)
            wrong.extend([number] if answer.token_ids != wanted[number] else [])

    threads = [threading.Thread(target=client, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(set(wanted.values())) > 1


BAD: list[tuple[Any, str]] = [
    ([], "no messages"),
    (["hello"], "message 1 must be a mapping"),
    ([{"role": "user", "content": [{"type": "image"}]}], "an image part must be"),
    ([{"role": "user", "content": [{"type": "image", "image": "a.png", "detail": "low"}]}], "an image part must be"),
    ([{"role": "user", "content": [{"type": "video"}]}], "a part must be"),
    ([{"role": "user", "content": 3}], "the content must be"),
]


@pytest.mark.parametrize(("messages", "says"), BAD)
def test_messages_of_another_form(vlm: VLM, messages: Any, says: str) -> None:
    with pytest.raises(PromptError, match=says):
        vlm.conversations(1).ask(messages)


def test_no_caches(vlm: VLM) -> None:
    with pytest.raises(EdgeVLMError, match="at least 1"):
        vlm.conversations(0)


def test_tokens_are_there_while_they_come(vlm: VLM, picture: Picture) -> None:
    seen: list[int] = []
    with vlm.conversations(1).stream([user("tell", picture(1))], max_new_tokens=12, top_logprobs=2) as stream:
        for piece in stream:
            new = stream.tokens(len(seen))
            seen.extend(token.id for token in new)
            assert new
            assert piece
            assert all(len(token.top) == 2 and token.top[0][0] == token.id for token in new)
        seen.extend(token.id for token in stream.tokens(len(seen)))
    answer = stream.answer
    assert tuple(seen) == answer.token_ids
    assert [token.logprob for token in stream.tokens()] == list(answer.logprobs)
    assert tuple(token.top for token in stream.tokens()) == answer.top_logprobs


def test_the_same_bytes_are_prepared_once(vlm: VLM, picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[int] = []
    real = Pipeline.prepare

    def counted(self: Pipeline, image: Any) -> Any:
        prepared.append(1)
        return real(self, image)

    monkeypatch.setattr(Pipeline, "prepare", counted)
    one = PreparedPictures(vlm.pipeline, capacity=2 * 8 * 8 * 3)  # two of them
    files = [encoded(picture(number)) for number in range(3)]
    keys = [one.get(file).key for file in (files[0], files[1], files[0], files[0])]
    assert len(prepared) == 2
    assert keys[0] == keys[2] == keys[3] != keys[1]
    one.get(files[2])  # the second has to go
    one.get(files[0])
    assert len(prepared) == 3
    assert one.get(files[1]).key == keys[1]
    assert len(prepared) == 4
    assert one.get(picture(1)).key == keys[1]


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
