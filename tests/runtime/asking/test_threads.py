"""Sessions side by side, and one session shared."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable

import pytest
from PIL import Image

import edgevlm_runtime
from edgevlm_runtime import VLM, Answer
from edgevlm_runtime.engines.ort_graph import OrtBinding
from edgevlm_runtime.vision.cache import Embeddings
from edgevlm_runtime.vision.encoder import EncodedImage, ImageInput

Picture = Callable[[int], Image.Image]
Fresh = Callable[..., VLM]


def _same(one: Answer, other: Answer) -> bool:
    return (one.text, one.token_ids, one.finish_reason) == (other.text, other.token_ids, other.finish_reason)


def test_forgotten_stream_frees_the_session_for_other_threads(vlm: VLM) -> None:
    """No reference left: the session must not stay busy for ever, nor wait for the garbage collector."""
    session = vlm.session()
    answers: list[Answer] = []
    gc.disable()
    try:
        next(session.stream("hello"))
        other = threading.Thread(target=lambda: answers.append(session.ask("bye")), daemon=True)
        other.start()
        other.join(timeout=30)
    finally:
        gc.enable()
    assert answers
    assert _same(answers[0], vlm.ask(None, "bye"))


def test_sessions_in_threads(vlm: VLM, picture: Picture) -> None:
    questions = ["hello", "what is it?", "bye"]
    wanted = {(i, q): vlm.ask(picture(i), q).token_ids for i in range(4) for q in questions}
    wrong: list[tuple[int, str]] = []

    def work(number: int) -> None:
        with vlm.session(picture(number)) as session:
            for _ in range(3):
                wrong.extend((number, q) for q in questions if session.ask(q).token_ids != wanted[number, q])

    _run_all([threading.Thread(target=work, args=(number,)) for number in range(4)])
    assert not wrong


def test_one_session_in_threads(vlm: VLM, picture: Picture) -> None:
    """Questions wait for each other."""
    questions = ["hello", "what is it?", "bye"]
    wanted = {question: vlm.ask(picture(1), question).text for question in questions}
    session = vlm.session(picture(1))
    wrong: list[str] = []

    def work(question: str) -> None:
        texts = [session.ask(question).text for _ in range(3)]
        wrong.extend(text for text in texts if text != wanted[question])

    _run_all([threading.Thread(target=work, args=(question,)) for question in questions])
    assert not wrong


def _run_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_every_thread_its_own_cache(vlm: VLM) -> None:
    with vlm.session() as one, vlm.session() as two:
        tensors = [t for s in (one, two) for t in s._turns._shared._run.kv.tensors]  # type: ignore[union-attr]
    assert len({tensor.address for tensor in tensors}) == len(tensors)


def _in_thread(work: Callable[[], object]) -> object:
    """The work's result, of a thread that must end."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    thread.join(timeout=30)
    assert results, "the thread hangs"
    return results[0]


def test_close_waits_for_another_threads_answer(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = vlm.ask(None, "hello")
    session = vlm.session()
    closer = threading.Thread(target=session.close, daemon=True)
    run = OrtBinding.run

    def closing(self: OrtBinding) -> None:
        if closer.ident is None:
            closer.start()
        run(self)

    monkeypatch.setattr(OrtBinding, "run", closing)
    assert _same(session.ask("hello"), wanted)
    closer.join(timeout=30)
    assert not closer.is_alive()
    with pytest.raises(edgevlm_runtime.EdgeVLMError, match="closed"):
        session.ask("hello")


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_stream_left_open_blocks_nobody(vlm: VLM, cancelled: bool) -> None:
    """Its reader may never come back; another thread asks, weighs choices, streams and closes all the same."""
    wanted = vlm.ask(None, "bye")
    for again in (
        lambda session: session.ask("bye").text == wanted.text,
        lambda session: session.choose("bye", ["a", "b"]).best in "ab",
        lambda session: "".join(session.stream("bye")) == wanted.text,
        lambda session: session.close() is None,
    ):
        session = vlm.session()
        stream = session.stream("hello")
        piece = next(stream)
        if cancelled:
            session.cancel()
        assert _in_thread(lambda again=again, session=session: again(session))  # type: ignore[misc]
        assert list(stream) == []
        assert (stream.answer.text, stream.answer.finish_reason) == (piece, "cancelled")


def test_a_stream_read_by_several_threads(vlm: VLM) -> None:
    """One after the other, as a pool of a web server does; the last one then asks on its own."""
    wanted = vlm.ask(None, "hello")
    session = vlm.session()
    stream = session.stream("hello")
    pieces = [next(stream), *(_in_thread(lambda: next(stream)) for _ in range(2))]

    def read_on() -> str:
        pieces.append(next(stream))
        return session.ask("hello").text

    assert _in_thread(read_on) == wanted.text
    assert stream.answer.text == "".join(map(str, pieces))
    assert wanted.text.startswith(stream.answer.text)


def test_a_question_while_another_thread_reads_a_stream(vlm: VLM) -> None:
    """No raw error on either side: the stream ends with what it had said, the question gets its whole answer."""
    wanted, asked = vlm.ask(None, "hello"), vlm.ask(None, "bye")
    for _ in range(20):
        session = vlm.session()
        stream = session.stream("hello")
        pieces = [next(stream)]
        reader = threading.Thread(target=pieces.extend, args=(stream,), daemon=True)
        reader.start()
        assert _same(session.ask("bye"), asked)
        reader.join(timeout=30)
        assert not reader.is_alive()
        assert "".join(pieces) == stream.answer.text
        assert wanted.text.startswith(stream.answer.text)
        assert stream.answer.finish_reason in ("cancelled", wanted.finish_reason)
        assert _same(session.ask("hello"), wanted)


@pytest.mark.parametrize("kept", [0, 1 << 20])
def test_one_new_image_in_threads_is_encoded_once(fresh: Fresh, picture: Picture, kept: int) -> None:
    vlm = fresh(image_cache_bytes=kept)
    image, compute = vlm.pipeline.prepare(picture(1)), vlm.pipeline.encoder.compute
    started, runs = threading.Barrier(4), []

    def slow(one: ImageInput, tiles: dict[str, Embeddings]) -> EncodedImage:
        runs.append(one)
        time.sleep(1)  # the others arrive meanwhile, however busy the machine
        return compute(one, tiles)

    vlm.pipeline.encoder.compute = slow  # type: ignore[method-assign]
    encoded: list[EncodedImage] = []

    def work() -> None:
        started.wait()
        encoded.append(vlm.pipeline.encoder.encode(image))

    _run_all([threading.Thread(target=work) for _ in range(4)])
    assert len(runs) == 1
    assert sorted(one.cached for one in encoded) == [False, True, True, True]
    assert all((one.embeddings == encoded[0].embeddings).all() for one in encoded)


def test_a_failed_encoding_is_tried_again(fresh: Fresh, picture: Picture) -> None:
    """By whoever waited for it, and later."""
    vlm = fresh()
    image, compute = vlm.pipeline.prepare(picture(1)), vlm.pipeline.encoder.compute
    started, runs = threading.Barrier(2), []

    def failing_first(one: ImageInput, tiles: dict[str, Embeddings]) -> EncodedImage:
        runs.append(one)
        time.sleep(0.2)
        if len(runs) == 1:
            raise edgevlm_runtime.EdgeVLMError("out of memory")
        return compute(one, tiles)

    vlm.pipeline.encoder.compute = failing_first  # type: ignore[method-assign]
    outcomes: list[object] = []

    def work() -> None:
        started.wait()
        try:
            outcomes.append(vlm.pipeline.encoder.encode(image).cached)
        except edgevlm_runtime.EdgeVLMError as error:
            outcomes.append(str(error))

    _run_all([threading.Thread(target=work) for _ in range(2)])
    assert sorted(map(str, outcomes)) == ["False", "out of memory"]
    assert vlm.pipeline.encoder.encode(image).cached
