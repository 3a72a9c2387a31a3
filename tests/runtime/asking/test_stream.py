"""Answers in pieces; answers that are cancelled, left, or fail midway."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from PIL import Image

from edgevlm_runtime import VLM, Answer
from edgevlm_runtime.engines.ort_graph import OrtBinding
from edgevlm_runtime.errors import EdgeVLMError

Picture = Callable[[int], Image.Image]
Fresh = Callable[..., VLM]


def _same(one: Answer, other: Answer) -> bool:
    return (one.text, one.token_ids, one.finish_reason) == (other.text, other.token_ids, other.finish_reason)


def test_stream_gives_the_answer_in_pieces(vlm: VLM, picture: Picture) -> None:
    with vlm.session(picture(1)) as session:
        wanted = session.ask("hello")
        stream = session.stream("hello")
        with pytest.raises(EdgeVLMError, match="not finished"):
            _ = stream.answer
        pieces = list(stream)
    assert "".join(pieces) == wanted.text
    assert len(pieces) > 3
    assert all(pieces)
    assert _same(stream.answer, wanted)
    assert session.last_answer == stream.answer


def test_stream_left_early_ends_as_cancelled(vlm: VLM, picture: Picture) -> None:
    with vlm.session(picture(1)) as session:
        wanted = session.ask("hello")
        with session.stream("hello") as stream:
            piece = next(stream)
        assert stream.answer.finish_reason == "cancelled"
        assert stream.answer.text == piece
        assert wanted.text.startswith(piece)
        assert session.last_answer == stream.answer
        assert _same(session.ask("hello"), wanted)


def test_new_question_ends_the_threads_unfinished_stream(vlm: VLM) -> None:
    with vlm.session() as session:
        wanted = session.ask("bye")
        stream = session.stream("hello")
        next(stream)
        assert _same(session.ask("bye"), wanted)
        assert list(stream) == []
        assert stream.answer.finish_reason == "cancelled"


def test_stream_that_was_never_started_does_nothing(vlm: VLM) -> None:
    with vlm.session() as session:
        idle = session.stream("hello")
        wanted = session.ask("bye")
        idle.close()
        assert session.last_answer is wanted


@pytest.mark.parametrize("after", [0, 1, 5])
def test_cancelled_midway(vlm: VLM, picture: Picture, after: int) -> None:
    with vlm.session(picture(1)) as session:
        wanted = session.ask("hello")
    with vlm.session(picture(1)) as session:
        stream = session.stream("hello")
        pieces = [next(stream) for _ in range(after)]
        session.cancel() if after else stream.cancel()
        pieces += list(stream)
        answer = stream.answer
        assert answer.finish_reason == "cancelled"
        assert "".join(pieces) == answer.text
        assert wanted.token_ids[: len(answer.token_ids)] == answer.token_ids
        assert len(answer.token_ids) < len(wanted.token_ids)
        assert _same(session.ask("hello"), wanted)


def test_cancelled_from_another_thread(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel = threading.Event()
    runs = 0
    run = OrtBinding.run

    def counted(self: OrtBinding) -> None:
        nonlocal runs
        run(self)
        runs += 1
        if runs == 4:  # a prefill and three steps
            setter = threading.Thread(target=cancel.set)
            setter.start()
            setter.join()

    monkeypatch.setattr(OrtBinding, "run", counted)
    with vlm.session() as session:
        answer = session.ask("hello", cancel=cancel)
    assert answer.finish_reason == "cancelled"
    assert len(answer.token_ids) == 4 - 1
    assert runs == 4


def test_failure_midway_leaves_the_session_usable(vlm: VLM, picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    with vlm.session(picture(1)) as session:
        wanted = session.ask("hello")
        run = OrtBinding.run
        for broken in (0, 1, 3):
            left = [broken]

            def failing(self: OrtBinding, left: list[int] = left) -> None:
                if not left[0]:
                    raise EdgeVLMError("decoder.onnx failed: out of memory")
                left[0] -= 1
                run(self)

            monkeypatch.setattr(OrtBinding, "run", failing)
            with pytest.raises(EdgeVLMError, match="out of memory"):
                session.ask("what is it?")
            monkeypatch.setattr(OrtBinding, "run", run)
            assert session.last_answer is not None
            assert _same(session.ask("hello"), wanted)


def test_a_cancelled_stream_has_its_answer_at_once(vlm: VLM) -> None:
    """Nobody has to read on: whoever cancelled may ask what there is."""
    session, event = vlm.session(), threading.Event()
    for cancel in (lambda stream: stream.cancel(), lambda _: session.cancel(), lambda _: event.set()):
        event.clear()
        stream = session.stream("hello", cancel=event)
        piece = next(stream)
        cancel(stream)
        assert (stream.answer.text, stream.answer.finish_reason) == (piece, "cancelled")
        assert session.last_answer is stream.answer


def test_a_stream_of_a_closed_session(vlm: VLM) -> None:
    session = vlm.session()
    idle, begun = session.stream("hello"), session.stream("hello")
    next(begun)
    session.close()
    assert begun.answer.finish_reason == "cancelled"
    with pytest.raises(EdgeVLMError, match="closed"):
        next(idle)
