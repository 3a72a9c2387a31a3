"""A conversation: the history is seen, and not computed again."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgevlm_runtime import VLM
from edgevlm_runtime.errors import ContextOverflow, ImageError

Picture = Callable[[int], Image.Image]


def _user(text: str, images: int = 0) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image"}] * images + [{"type": "text", "text": text}]}


def _assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def _greedy(vlm: VLM, messages: list[dict[str, Any]], images: list[Image.Image], tokens: int) -> tuple[int, ...]:
    """What the model says to a conversation, computed anew for every token from all positions' logits."""
    prompt = vlm.pipeline.assemble(messages, [vlm.pipeline.prepare(image) for image in images], vlm.context_tokens)
    inputs = [vlm.pipeline.prepare(image) for image in images]
    embeddings = [vlm.pipeline.encoder.compute(image).embeddings for image in inputs]
    context = vlm.pipeline.new_context()
    logits = context.prefill(prompt, embeddings.__getitem__)
    assert logits is not None
    said: list[int] = []
    for _ in range(tokens):
        said.append(int(logits.argmax()))
        logits = context.step(said[-1])
    return tuple(said)


def test_history_is_seen(vlm: VLM, picture: Picture) -> None:
    with vlm.chat(picture(1), system="be brief") as chat:
        first = chat.ask("hello", max_new_tokens=6)
        second = chat.ask("and then?", max_new_tokens=6)
    system = {"role": "system", "content": [{"type": "text", "text": "be brief"}]}
    messages = [system, _user("hello", 1), _assistant(first.text), _user("and then?")]
    assert second.token_ids == _greedy(vlm, messages, [picture(1)], 6)
    assert chat.messages == (*messages, _assistant(second.text))
    assert second.token_ids != vlm.ask(picture(1), "and then?", system="be brief", max_new_tokens=6).token_ids


def test_history_is_not_computed_again(vlm: VLM, picture: Picture) -> None:
    """Not even the answer; only its last token, which was never fed back, and what the new turn adds."""
    printable = range(94)  # one token each however they are tokenized
    with vlm.chat(picture(1)) as chat:
        first = chat.ask("hello", max_new_tokens=6, suppress_tokens=[i for i in range(262) if i not in printable])
        second = chat.ask("and then?", max_new_tokens=6)
    assert second.prefix_tokens_reused == first.prompt_tokens + 6 - 1
    assert (first.image_tokens, second.image_tokens) == (4, 4)
    assert second.timings.vision == 0


def test_images_that_come_later(vlm: VLM, picture: Picture) -> None:
    with vlm.chat(picture(1)) as chat:
        first = chat.ask("hello", max_new_tokens=6)
        second = chat.ask("and this?", images=[picture(2), picture(3)], max_new_tokens=6)
        third = chat.ask("bye", max_new_tokens=6)
    messages = [_user("hello", 1), _assistant(first.text), _user("and this?", 2)]
    images = [picture(1), picture(2), picture(3)]
    assert second.token_ids == _greedy(vlm, messages, images, 6)
    messages += [_assistant(second.text), _user("bye")]
    assert third.token_ids == _greedy(vlm, messages, images, 6)
    assert third.image_tokens == 12


def test_failed_turn_is_not_remembered(vlm: VLM, picture: Picture) -> None:
    with vlm.chat(picture(1)) as chat:
        with pytest.raises(ContextOverflow):
            chat.ask("x" * 300)
        with pytest.raises(ImageError):
            chat.ask("hello", images=[b"no image"])
        assert chat.messages == ()
        answer = chat.ask("hello", max_new_tokens=6)
    assert answer.token_ids == _greedy(vlm, [_user("hello", 1)], [picture(1)], 6)


def test_cancelled_turn(vlm: VLM) -> None:
    """What was said before is part of the conversation; nothing said, nothing happened."""
    with vlm.chat() as chat:
        silent = chat.stream("hello")
        silent.cancel()
        assert list(silent) == []
        assert chat.messages == ()
        with chat.stream("hello") as stream:
            piece = next(stream)
        assert chat.messages == (_user("hello"), _assistant(piece))
        answer = chat.ask("go on", max_new_tokens=6)
    assert answer.token_ids == _greedy(vlm, [_user("hello"), _assistant(piece), _user("go on")], [], 6)


def test_a_dropped_stream_is_no_turn(vlm: VLM) -> None:
    """Nobody said that it was meant to end there; a newer question that ends it does."""
    with vlm.chat() as chat:
        next(chat.stream("hello"))
        gc.collect()
        assert chat.messages == ()
        stream = chat.stream("hello")
        piece = next(stream)
        answer = chat.ask("go on", max_new_tokens=6)
    assert chat.messages == (_user("hello"), _assistant(piece), _user("go on"), _assistant(answer.text))


def test_one_image_is_one_image(vlm: VLM, picture: Picture, tmp_path: Path) -> None:
    """Not a sequence of characters, wherever images are taken; and a list is several."""
    file = tmp_path / "part.png"
    picture(2).save(file)
    with vlm.chat() as chat, vlm.chat([file, picture(3)]) as other, vlm.session([file]) as session:
        one = chat.ask("hello", images=str(file))
        assert one.image_tokens == vlm.ask(file, "hello").image_tokens == session.ask("hello").image_tokens
        assert one.token_ids == vlm.ask([picture(2)], "hello").token_ids
        assert other.ask("hello").image_tokens == 2 * one.image_tokens


def test_a_full_chat_says_what_to_do(fresh: Callable[..., VLM]) -> None:
    with fresh(max_context=40).chat() as chat:
        with pytest.raises(ContextOverflow, match="shorten it"):
            chat.ask("x" * 50)
        chat.ask("hello", max_new_tokens=20)
        with pytest.raises(ContextOverflow, match="the context holds 40: start another chat"):
            chat.ask("x" * 30)


def test_preprocessing_is_counted_where_it_belongs(vlm: VLM, picture: Picture) -> None:
    """Not at whichever question begins first, perhaps in another thread."""
    with vlm.chat(picture(1)) as chat:
        chat.ask("hello", max_new_tokens=2)
        waiting = chat.stream("and this?", images=picture(2), max_new_tokens=2)
        assert chat.ask("bye", max_new_tokens=2).timings.preprocess == 0
        list(waiting)
        assert waiting.answer.timings.preprocess > 0
