"""The generation loop: one token at a time until something ends the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from edgevlm_runtime.decoding.decoder import Logits
from edgevlm_runtime.decoding.sampling import Sampler
from edgevlm_runtime.text.stop_strings import StopStrings
from edgevlm_runtime.text.tokenizer import TextStream

STOP = "stop"
LENGTH = "length"
STOP_STRING = "stop_string"
CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One step of an answer. The text of all events together is the answer's; a piece may be empty, and holds whole
    characters only."""

    text: str
    token_id: int | None = None
    """None only in the last event of a cancelled answer, which generated nothing more."""
    logprob: float | None = None
    finish_reason: str | None = None
    """Set in the last event."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What ends an answer."""

    eos_token_ids: frozenset[int]
    max_new_tokens: int
    stop_strings: tuple[str, ...] = ()
    cancelled: Callable[[], bool] = field(default=lambda: False)
    stop_token_ids: frozenset[int] = frozenset()
    """End the answer as stop strings do."""


def generate(
    logits: Logits, step: Callable[[int], Logits], room: int, sampler: Sampler, text: TextStream, ending: Ending
) -> Iterator[TokenEvent]:
    """Generate from the prompt's last `logits` [vocab]; `step` feeds a token back and gives the next logits.

    `room`: tokens that can still be fed back; one more than that can be generated. The last token is not fed back.
    """
    stops = StopStrings(ending.stop_strings)
    limit = min(ending.max_new_tokens, room + 1)
    count = 0
    while True:
        if ending.cancelled():
            yield TokenEvent(_rest(text, stops), finish_reason=CANCELLED)
            return
        pick = sampler.pick(logits)
        count += 1
        ended = pick.token_id in ending.eos_token_ids or pick.token_id in ending.stop_token_ids
        piece = stops.push("" if ended else text.push(pick.token_id))  # what ends an answer is none of its text
        reason = _finish_reason(pick.token_id, count, limit, stops, ending)
        if reason is not None:
            piece += _rest(text, stops)
            # the last characters may complete a stop string, which no longer is text
            reason = STOP_STRING if stops.found is not None else reason
        yield TokenEvent(piece, pick.token_id, pick.logprob, reason)
        if reason is not None:
            return
        logits = step(pick.token_id)


def _finish_reason(token: int, count: int, limit: int, stops: StopStrings, ending: Ending) -> str | None:
    if token in ending.eos_token_ids:
        return STOP
    if stops.found is not None or token in ending.stop_token_ids:
        return STOP_STRING
    return LENGTH if count >= limit else None


def _rest(text: TextStream, stops: StopStrings) -> str:
    """What both hold back."""
    piece = stops.push(text.finish())
    return piece + (stops.finish() if stops.found is None else "")
