"""Contexts on disk: answers are those of a cache that was computed, whatever becomes of the files."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import edgevlm_runtime
from edgevlm_runtime import Answer
from edgevlm_runtime.decoding.kept.held import Contents
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.contexts import PICTURES, ROWS, in_tiles, new_context, prefill, prompt_of

QUESTION, OTHER = "what is there to be seen in it", "is there a scratch on this part of it"
Fresh = Callable[..., edgevlm_runtime.VLM]
Picture = Callable[[int], Image.Image]


def told(answer: Answer) -> tuple[Any, ...]:
    return answer.token_ids, answer.text, answer.finish_reason


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.context"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "contexts"


def test_a_second_question_after_a_restart(fresh: Fresh, picture: Picture, folder: Path) -> None:
    expected = [told(fresh().ask(picture(1), question)) for question in (QUESTION, OTHER)]
    first = fresh(context_cache_dir=folder).ask(picture(1), QUESTION)
    assert (first.prefix_tokens_reused, first.image_cache) == (0, "miss")
    again = fresh(context_cache_dir=folder).ask(picture(1), QUESTION)
    assert again.prefix_tokens_reused == again.prompt_tokens - 1
    assert again.image_cache == "hit"
    assert [told(first), told(again)] == [expected[0]] * 2


def test_no_more_is_taken_than_is_shared(fresh: Fresh, picture: Picture, folder: Path) -> None:
    long = "a system prompt that all of the questions have in common"
    with fresh(context_cache_dir=folder).session(picture(1), system=long) as session:
        session.ask(QUESTION)
    for number, question, shared in ((1, OTHER, True), (2, QUESTION, False)):
        with fresh(context_cache_dir=folder).session(picture(number), system=long) as session:
            answer = session.ask(question)
        with fresh().session(picture(number), system=long) as session:
            assert told(session.ask(question)) == told(answer)
        assert answer.image_cache == ("hit" if shared else "miss")
        assert answer.prefix_tokens_reused >= len(long)  # bytes are tokens here
        assert answer.prefix_tokens_reused < answer.prompt_tokens - len(question) // 2


def test_a_chat_goes_on_after_a_restart(fresh: Fresh, picture: Picture, folder: Path) -> None:
    vlm = fresh(context_cache_dir=folder)
    with vlm.chat(picture(1)) as chat, fresh().chat(picture(1)) as plain:
        for question in (QUESTION, OTHER):
            assert told(chat.ask(question, max_new_tokens=8)) == told(plain.ask(question, max_new_tokens=8))
        told_before, shown = chat.messages, picture(1)
    messages = [*told_before, {"role": "user", "content": [{"type": "text", "text": "and"}]}]
    content = [
        {"type": "image", "image": shown} if part["type"] == "image" else part for part in messages[0]["content"]
    ]
    messages[0] = {**messages[0], "content": content}
    expected = fresh().conversations(1).ask(messages, max_new_tokens=8)
    answer = fresh(context_cache_dir=folder).conversations(1).ask(messages, max_new_tokens=8)
    assert told(answer) == told(expected)
    assert answer.prefix_tokens_reused > answer.prompt_tokens // 2


def test_it_is_written_after_the_answer(fresh: Fresh, picture: Picture, folder: Path) -> None:
    with fresh(context_cache_dir=folder).session(picture(1)) as session:
        stream = session.stream(QUESTION)
        next(stream)
        assert not files(folder)
        list(stream)
        assert len(files(folder)) == 1
        session.ask(QUESTION)
        assert len(files(folder)) == 1  # it is there


def test_a_stream_that_is_left_stores_nothing(fresh: Fresh, picture: Picture, folder: Path) -> None:
    with fresh(context_cache_dir=folder).session(picture(1)) as session:
        stream = session.stream(QUESTION)
        next(stream)
        stream.close()
    assert not files(folder)


def test_choices_are_weighed_the_same(fresh: Fresh, picture: Picture, folder: Path) -> None:
    expected = fresh().session(picture(1)).choose(QUESTION, ["yes", "no"])
    for reused in (False, True):
        with fresh(context_cache_dir=folder).session(picture(1)) as session:
            choice = session.choose(QUESTION, ["yes", "no"])
        assert choice.scores == pytest.approx(expected.scores, abs=1e-4)
        assert bool(choice.prefix_tokens_reused) == reused


def test_what_is_longer_takes_the_place_of_its_beginning(fresh: Fresh, folder: Path) -> None:
    vlm = fresh(context_cache_dir=folder)
    with vlm.chat() as chat:
        for _ in range(4):
            chat.ask("a question that is long enough to be kept", max_new_tokens=4)
    assert len(files(folder)) <= 2


def test_images_behind_a_long_beginning_are_kept(fresh: Fresh, picture: Picture, folder: Path) -> None:
    long = "a system prompt that all of the questions have in common, and that is far longer than an image"
    for number in (1, 2, 1, 2):
        with fresh(context_cache_dir=folder).session(picture(number), system=long) as session:
            answer = session.ask("?", max_new_tokens=4)
    assert len(files(folder)) == 2
    assert answer.image_cache == "hit"


def test_another_bundle_leaves_it_alone(fresh: Fresh, mrope_bundle: Path, folder: Path) -> None:
    fresh(context_cache_dir=folder).ask(None, QUESTION)
    (own,) = files(folder)
    other = edgevlm_runtime.load(mrope_bundle, threads=1, context_cache_dir=folder).ask(None, QUESTION)
    assert other.prefix_tokens_reused == 0
    assert len(files(folder)) == 2
    assert own in files(folder)


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_are_computed_anew(
    fresh: Fresh, vlm: edgevlm_runtime.VLM, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("contexts")
    expected = told(vlm.ask(None, QUESTION, max_new_tokens=4))
    model = fresh(context_cache_dir=folder)
    model.ask(None, QUESTION, max_new_tokens=4)
    (file,) = files(folder)
    whole = file.read_bytes()
    content = bytearray(whole)
    if data.draw(st.booleans(), label="truncate"):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        place = data.draw(st.one_of(st.integers(0, 200), st.integers(0, len(content) - 1)))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    answer = fresh(context_cache_dir=folder).ask(None, QUESTION, max_new_tokens=4)
    assert told(answer) == expected
    assert answer.prefix_tokens_reused == 0
    after = fresh(context_cache_dir=folder).ask(None, QUESTION, max_new_tokens=4)
    assert told(after) == expected
    assert after.prefix_tokens_reused == after.prompt_tokens - 1


@given(st.binary(max_size=64))
def test_any_bytes_are_no_contents(data: bytes) -> None:
    places = iter([data[:8], data[8:]])
    read = Contents.read(lambda count: next(places, b"")[:count])
    assert read is None or read.ids.size


def test_the_folder_is_bounded(fresh: Fresh, folder: Path) -> None:
    fresh(context_cache_dir=folder).ask(None, QUESTION)
    most = 3 * files(folder)[0].stat().st_size
    vlm = fresh(context_cache_dir=folder, context_cache_dir_bytes=most)
    for number in range(8):
        vlm.ask(None, f"{number} {QUESTION}", max_new_tokens=4)
        assert sum(file.stat().st_size for file in files(folder)) <= most
    last = fresh(context_cache_dir=folder).ask(None, f"7 {QUESTION}", max_new_tokens=4)
    assert last.prefix_tokens_reused == last.prompt_tokens - 1


def test_one_that_is_too_large_is_not_written(fresh: Fresh, folder: Path) -> None:
    fresh(context_cache_dir=folder, context_cache_dir_bytes=1000).ask(None, QUESTION)
    assert not list(folder.iterdir())


def test_a_full_disk_costs_the_entry(fresh: Fresh, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A limit on the size of files is what a test can have of a full disk: writes fail midway, as there."""
    vlm = fresh(context_cache_dir=folder)
    expected = told(fresh().ask(None, QUESTION))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        answer = vlm.ask(None, QUESTION)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert told(answer) == expected
    assert not list(folder.iterdir())
    assert "context cache entry not stored" in caplog.text


def test_a_folder_that_is_gone(fresh: Fresh, folder: Path) -> None:
    vlm = fresh(context_cache_dir=folder)
    folder.rmdir()
    assert told(vlm.ask(None, QUESTION)) == told(fresh().ask(None, QUESTION))


def test_a_folder_that_cannot_be_made(fresh: Fresh, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(EdgeVLMError, match="context cache folder cannot be made"):
        fresh(context_cache_dir=tmp_path / "file" / "cache")


def _ask_on(bundle: Path, folder: Path, first: int) -> None:
    vlm = edgevlm_runtime.load(bundle, threads=1, context_cache_dir=folder, context_cache_dir_bytes=400_000)
    for number in range(first, 10_000):
        vlm.ask(None, f"{number} {QUESTION}", max_new_tokens=2)


@pytest.fixture
def asking(handmade_bundle: Path, folder: Path) -> Iterator[Callable[[int], multiprocessing.process.BaseProcess]]:
    """Starts processes that ask and store without end."""
    started = []
    context = multiprocessing.get_context("spawn")

    def start(first: int) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=_ask_on, args=(handmade_bundle, folder, first))
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def _wait_for(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(files(folder)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_while_it_writes(asking: Any, fresh: Fresh, folder: Path) -> None:
    for number in range(3):
        process = asking(1000 * number)
        _wait_for(folder, 2 * (number + 1))
        time.sleep(0.01 * number)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        found = {file.name for file in files(folder)}
        vlm = fresh(context_cache_dir=folder)
        for first in range(number + 1):
            question = f"{1000 * first} {QUESTION}"
            assert told(vlm.ask(None, question, max_new_tokens=2)) == told(
                fresh().ask(None, question, max_new_tokens=2)
            )
        assert found <= {file.name for file in files(folder)}  # none was damaged


@pytest.mark.skipif(sys.platform == "win32", reason="files that are open cannot be replaced there")
def test_two_processes_at_once(asking: Any, fresh: Fresh, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    asking(0)
    asking(0)
    _wait_for(folder, 3)
    vlm, plain = fresh(context_cache_dir=folder), fresh()
    for number in range(12):
        question = f"{number} {QUESTION}"
        assert told(vlm.ask(None, question, max_new_tokens=2)) == told(plain.ask(None, question, max_new_tokens=2))
    assert "damaged" not in caplog.text


def test_threads(fresh: Fresh, folder: Path) -> None:
    vlm, plain = fresh(context_cache_dir=folder, context_cache_dir_bytes=400_000), fresh()
    expected = {n: told(plain.ask(None, f"{n} {QUESTION}", max_new_tokens=2)) for n in range(6)}
    wrong: list[int] = []

    def work() -> None:
        for number in range(12):
            answer = vlm.ask(None, f"{number % 6} {QUESTION}", max_new_tokens=2)
            wrong.extend([] if told(answer) == expected[number % 6] else [number])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_tiles_that_did_not_change_are_known_after_a_restart(fresh: Fresh, folder: Path) -> None:
    before, after, half = (
        in_tiles(prompt_of([1, 2, "x", 3]), "ab"),
        in_tiles(prompt_of([1, 2, "z", 3]), "ac"),
        ROWS // 2,
    )
    rows = np.concatenate([PICTURES["x"][:half], PICTURES["z"][half:]])
    first = fresh(context_cache_dir=folder)
    context = new_context(first)
    prefill(context, before)
    assert first.pipeline.stored is not None
    first.pipeline.stored.keep(context, before)
    assert len(files(folder)) == 1

    again = fresh(context_cache_dir=folder)
    assert again.pipeline.stored is not None
    for other in (
        in_tiles(prompt_of([1, 2, "x", 3]), "ba"),
        in_tiles(prompt_of([1, 2, "x", 3]), "cb"),
        prompt_of([1, 2, "x", 3]),
    ):
        context = new_context(again)
        again.pipeline.stored.recall(context, other)
        assert context.length == 0  # two tokens of text are not worth a file
    context = new_context(again)
    again.pipeline.stored.recall(context, after)
    assert context.length == context.shared_prefix(after) == 2 + half
    reused, anew = (one.prefill(after, lambda _: rows) for one in (context, new_context(again)))
    assert reused is not None
    assert anew is not None
    np.testing.assert_allclose(reused, anew, atol=2e-5)

    again.pipeline.stored.keep(context, after)
    assert len(files(folder)) == 2  # each has a tile that the other has not
