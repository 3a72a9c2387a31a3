"""A session that is shown other images: the answers of a fresh session, and what the prompts share computed once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgevlm_runtime import VLM, Answer
from edgevlm_runtime.errors import ContextOverflow, EdgeVLMError, ImageError
from edgevlm_runtime.images.load import ImageSources

Picture = Callable[[int], Image.Image]
Fresh = Callable[..., VLM]
BEGINNING = 2
"""Tokens before the first image: beginning of sequence, role."""
QUESTIONS = ("hello", "what is it?")


def _same(one: Answer, other: Answer) -> bool:
    return (one.text, one.token_ids, one.finish_reason) == (other.text, other.token_ids, other.finish_reason)


def test_answers_are_those_of_a_fresh_session(vlm: VLM, picture: Picture) -> None:
    shown: list[tuple[int, ...]] = [(1,), (2,), (1, 2), (2, 1), (), (1, 3), (3,), (1, 2, 3)]
    with vlm.session(picture(9)) as session:
        for numbers in shown:
            images = [picture(number) for number in numbers]
            session.show(*images)
            for question in QUESTIONS:
                alone = vlm.ask(images, question)
                answer = session.ask(question)
                assert _same(answer, alone), (numbers, question)
                np.testing.assert_allclose(answer.logprobs, alone.logprobs, atol=1e-4)
                with vlm.session(*images) as other:
                    expected = other.choose(question, ["yes", "no"]).scores
                assert session.choose(question, ["yes", "no"]).scores == pytest.approx(expected, abs=1e-4)


def test_images_that_come_first_stay_in_the_cache(fresh: Fresh, picture: Picture) -> None:
    vlm = fresh()
    golden = [picture(1), picture(2)]
    with vlm.session(*golden, picture(3)) as session:
        session.ask("hello")
        for number in range(4, 9):
            session.show(*golden, picture(number))
            first, second = session.ask("hello"), session.ask("what is it?")
            assert first.prefix_tokens_reused == BEGINNING + 8
            assert first.image_cache == "miss"  # the new one
            assert first.image_tokens == 12
            assert second.prefix_tokens_reused == BEGINNING + 12
        session.show(picture(2), picture(1), picture(8))
        assert session.ask("hello").prefix_tokens_reused == BEGINNING


def test_what_is_shown_is_known_by_content(vlm: VLM, picture: Picture, tmp_path: Path) -> None:
    file = tmp_path / "part.png"
    picture(1).save(file)
    with vlm.session(picture(1)) as session:
        before = session.ask("hello")
        session.show(file)
        again = session.ask("hello")
        picture(2).save(file)
        same_file = session.ask("hello")  # prepared when it was shown
    assert again.prefix_tokens_reused == same_file.prefix_tokens_reused == again.prompt_tokens - 1
    assert _same(before, again)
    assert _same(again, same_file)


def test_refused_images_leave_the_former_ones(vlm: VLM, picture: Picture, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    expected = vlm.ask(picture(1), "hello")
    refused: list[tuple[ImageSources, type[EdgeVLMError]]] = [
        (broken, ImageError),
        ([picture(2), tmp_path / "nowhere.png"], ImageError),
        (np.zeros((3, 3), np.uint8), ImageError),
        ([picture(2)] * 64, ContextOverflow),
    ]
    with vlm.session(picture(1)) as session:
        for images, kind in refused:
            with pytest.raises(kind):
                session.show(images)
            assert _same(session.ask("hello"), expected)
        session.show(picture(2))
        assert _same(session.ask("hello"), vlm.ask(picture(2), "hello"))


def test_the_new_images_are_paid_for_once(vlm: VLM, picture: Picture) -> None:
    with vlm.session(picture(1)) as session:
        session.ask("hello")
        session.show(picture(2))
        first, second = session.ask("hello"), session.ask("hello")
    assert first.timings.preprocess > 0
    assert second.timings.preprocess == 0


def test_a_question_is_about_what_was_shown_when_it_was_asked(vlm: VLM, picture: Picture) -> None:
    with vlm.session(picture(1)) as session:
        begun, waiting = session.stream("hello"), session.stream("hello")
        head = next(begun)
        session.show(picture(2))
        rest = head + "".join(begun)
        assert rest == vlm.ask(picture(1), "hello").text
        assert "".join(waiting) == vlm.ask(picture(1), "hello").text
        assert _same(session.ask("hello"), vlm.ask(picture(2), "hello"))


def test_a_closed_session_shows_nothing(vlm: VLM, picture: Picture) -> None:
    session = vlm.session(picture(1))
    session.close()
    with pytest.raises(EdgeVLMError, match="closed"):
        session.show(picture(2))


def test_a_chat_keeps_its_images(vlm: VLM, picture: Picture) -> None:
    with vlm.chat(picture(1)) as chat, pytest.raises(EdgeVLMError, match=r"ask\(question, images="):
        chat.show(picture(2))


def test_threads_share_a_session_that_is_shown_others(vlm: VLM, picture: Picture) -> None:
    """Each answer is that of one picture or the other, never of a mixture; each thread's own where it showed and asked
    without anybody between."""
    numbers = range(6)
    expected = {number: vlm.ask(picture(number), "hello").token_ids for number in numbers}
    assert len(set(expected.values())) == len(numbers)
    alone, failed = threading.Lock(), []

    with vlm.session(picture(0)) as session:

        def show_and_ask(number: int) -> None:
            for _ in range(8):
                with alone:
                    session.show(picture(number))
                    if session.ask("hello").token_ids != expected[number]:
                        failed.append(number)

        def ask() -> None:
            answers = [session.ask("hello").token_ids for _ in range(16)]
            failed.extend(-1 for tokens in answers if tokens not in expected.values())

        threads = [threading.Thread(target=show_and_ask, args=(number,)) for number in numbers]
        threads += [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []


def test_months_of_pictures_leave_nothing_behind(fresh: Fresh, picture: Picture) -> None:
    """What is known of an image goes when it leaves the cache."""
    vlm = fresh(image_cache_bytes=0)
    with vlm.session(picture(0)) as session:
        with session._turns.between():
            context = session._turns._shared
        for number in range(50):
            session.show(picture(0), picture(number + 1))
            answer = session.ask("hello", max_new_tokens=1)
            assert answer.prefix_tokens_reused == (BEGINNING + 4 if number else 0)
            assert len(context._numbers) == 2


def test_the_same_question_about_the_next_picture_is_not_tokenized_again(
    fresh: Fresh, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = fresh()
    prompts: list[str] = []
    encode = vlm.tokenizer.encode

    def counted(text: str, bos_token: str | None = None) -> list[int]:
        if "hello" in text:
            prompts.append(text)
        return encode(text, bos_token)

    monkeypatch.setattr(vlm.tokenizer, "encode", counted)
    with vlm.session(picture(1)) as session:
        first = session.choose("hello", ("yes", "no"))
        asked = len(prompts)
        session.show(picture(2))
        second = session.choose("hello", ("yes", "no"))
    assert len(prompts) == asked > 0
    assert first.scores != second.scores
    with vlm.session(picture(2)) as other:
        assert second.scores == pytest.approx(other.choose("hello", ("yes", "no")).scores, abs=1e-4)
