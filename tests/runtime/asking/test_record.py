"""What an answer's timings count, with a clock that the test moves."""

from __future__ import annotations

import pytest

from edgevlm_runtime.asking import record
from edgevlm_runtime.asking.record import AnswerRecord
from edgevlm_runtime.decoding.generate import TokenEvent


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, in a list of one."""
    now = [100.0]
    monkeypatch.setattr(record.time, "perf_counter", lambda: now[0])
    return now


def test_time_of_an_answer(clock: list[float]) -> None:
    answer = AnswerRecord(preprocess_ms=5.0)
    clock[0] += 0.010
    with answer.timed("prefill"):
        clock[0] += 0.100
    clock[0] += 0.001
    answer.add(TokenEvent("a", 7, -0.5))
    for place in range(4):
        answer.pause()
        clock[0] += 3.0  # the consumer of a stream takes its time
        answer.resume()
        clock[0] += 0.020
        answer.add(TokenEvent("b" if place else "", 8, -0.25, "stop" if place == 3 else None))
    clock[0] += 0.002
    timings = answer.answer().timings
    assert timings.preprocess == 5.0
    assert timings.prefill == pytest.approx(100)
    assert timings.time_to_first_token == pytest.approx(5 + 111)
    assert timings.decode_per_token == pytest.approx(20)
    assert timings.total == pytest.approx(5 + 111 + 4 * 20 + 2)
    assert answer.answer().text == "abbb"
    assert answer.answer().token_ids == (7, 8, 8, 8, 8)
    assert answer.answer().logprobs == (-0.5, -0.25, -0.25, -0.25, -0.25)
    assert answer.finish_reason == "stop"


def test_a_stage_that_fails_still_counts(clock: list[float]) -> None:
    answer = AnswerRecord(0.0)

    def fail() -> None:
        with answer.timed("prefill"):
            clock[0] += 0.5
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert answer.spent["prefill"] == pytest.approx(500)


def test_no_token_at_all(clock: list[float]) -> None:
    answer = AnswerRecord(0.0)
    clock[0] += 0.25
    answer.add(TokenEvent("", finish_reason="cancelled"))
    timings = answer.answer().timings
    assert (timings.time_to_first_token, timings.decode_per_token, timings.total) == (250, 0, 250)
