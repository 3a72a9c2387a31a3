"""What ends an answer, and what its text is then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from edgevlm_runtime.decoding.context import Context
from edgevlm_runtime.decoding.generate import Ending, TokenEvent, generate
from edgevlm_runtime.decoding.sampling import Sampler
from edgevlm_runtime.options import GenerationOptions
from edgevlm_runtime.text.tokenizer import Tokenizer

VOCAB, EOS = 262, 257
Go = Callable[..., list[TokenEvent]]


class _Script:
    """A context whose decoder says given tokens, and notes what is fed back."""

    length = 0

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = list(tokens)
        self.capacity = 100
        self.fed: list[int] = []

    def logits(self, place: int) -> np.ndarray:
        logits = np.zeros(VOCAB, np.float32)
        logits[self._tokens[place]] = 9.0
        return logits

    def step(self, token: int) -> np.ndarray:
        self.fed.append(token)
        return self.logits(len(self.fed))


@pytest.fixture(scope="module")
def tokenizer(handmade_bundle: Path) -> Tokenizer:
    return Tokenizer.load(handmade_bundle / "tokenizer.json")


@pytest.fixture(scope="module")
def run(tokenizer: Tokenizer) -> Go:
    def go(script: _Script, ending: Ending, room: int = 100) -> list[TokenEvent]:
        sampler = Sampler(GenerationOptions(), np.array([], np.int64), VOCAB)
        script.capacity = room
        return list(generate(script.logits(0), cast("Context", script), sampler, tokenizer.stream(), ending))

    return go


def _ending(limit: int = 50, *stops: str, cancelled: Iterator[bool] | None = None) -> Ending:
    return Ending(frozenset({EOS}), limit, stops, (lambda: next(cancelled)) if cancelled else lambda: False)


def _text(events: list[TokenEvent]) -> str:
    return "".join(event.text for event in events)


def test_end_of_sequence(run: Go, tokenizer: Tokenizer) -> None:
    script = _Script([*tokenizer.encode("good"), EOS, 1])
    events = run(script, _ending())
    assert _text(events) == "good"
    assert [event.finish_reason for event in events] == [None] * 4 + ["stop"]
    assert events[-1].token_id == EOS
    assert EOS not in script.fed  # the last token is not fed back
    assert len(script.fed) == 4


@pytest.mark.parametrize(("limit", "room", "tokens"), [(3, 100, 3), (10, 4, 5), (1, 0, 1), (7, 0, 1)])
def test_length(run: Go, tokenizer: Tokenizer, limit: int, room: int, tokens: int) -> None:
    script = _Script(tokenizer.encode("abcdefghijklm"))
    events = run(script, _ending(limit), room)
    assert _text(events) == "abcdefghijklm"[:tokens]
    assert events[-1].finish_reason == "length"
    assert len(script.fed) == tokens - 1 <= room


def test_stop_string_across_tokens(run: Go, tokenizer: Tokenizer) -> None:
    events = run(_Script(tokenizer.encode("one\n\ntwo")), _ending(50, "\n\n"))
    assert _text(events) == "one"
    assert events[-1].finish_reason == "stop_string"
    assert [event.token_id for event in events] == tokenizer.encode("one\n\n")


def test_a_beginning_of_a_stop_string_is_given_out_in_the_end(run: Go, tokenizer: Tokenizer) -> None:
    events = run(_Script([*tokenizer.encode("one\n"), EOS]), _ending(50, "\n\n"))
    assert _text(events) == "one\n"
    assert events[-1].finish_reason == "stop"


def test_no_half_characters(run: Go, tokenizer: Tokenizer) -> None:
    events = run(_Script([*tokenizer.encode("a\N{SNOWMAN}b\N{GRINNING FACE}"), EOS]), _ending())
    assert [event.text for event in events if event.text] == ["a", "\N{SNOWMAN}", "b", "\N{GRINNING FACE}"]


def test_cut_character_is_replaced_at_the_end(run: Go, tokenizer: Tokenizer) -> None:
    events = run(_Script(tokenizer.encode("a\N{GRINNING FACE}")), _ending(3))
    assert _text(events) == tokenizer.decode(tokenizer.encode("a\N{GRINNING FACE}")[:3])
    assert events[-1].finish_reason == "length"


def test_cancelled(run: Go, tokenizer: Tokenizer) -> None:
    events = run(_Script(tokenizer.encode("abcdef")), _ending(cancelled=iter([False, False, False, True])))
    assert _text(events) == "abc"
    assert events[-1] == TokenEvent("", None, None, "cancelled")


def test_cancelled_gives_out_what_was_held_back(run: Go, tokenizer: Tokenizer) -> None:
    events = run(_Script(tokenizer.encode("ab##c")), _ending(50, "###", cancelled=iter([False] * 4 + [True])))
    assert _text(events) == "ab##"


def test_log_probabilities(run: Go) -> None:
    (event,) = run(_Script([5]), _ending(1))
    assert event.logprob == pytest.approx(9 - np.log(np.exp(9) + VOCAB - 1), abs=1e-5)


def test_what_ends_an_answer_is_none_of_its_text(run: Go, tokenizer: Tokenizer) -> None:
    """Also where the tokenizer shows the token: an end of turn that was added as a plain one."""
    shown = tokenizer.encode("x")[0]
    for ending in (Ending(frozenset({shown}), 50), Ending(frozenset({EOS}), 50, stop_token_ids=frozenset({shown}))):
        events = run(_Script([*tokenizer.encode("good"), shown, 1]), ending)
        assert _text(events) == "good"
        assert events[-1].finish_reason == ("stop" if shown in ending.eos_token_ids else "stop_string")
        assert events[-1].token_id == shown
