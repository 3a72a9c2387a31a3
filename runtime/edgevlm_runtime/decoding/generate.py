"""The generation loop: one token at a time until something ends the answer.

`lookup.Ahead` may stand between the loop and its KV cache: it gives the logits of some tokens before they are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from edgevlm_runtime.decoding.ahead.lookup import Ahead
from edgevlm_runtime.decoding.context import Context
from edgevlm_runtime.decoding.decoder import Logits
from edgevlm_runtime.decoding.sampling import Pick, Sampler
from edgevlm_runtime.text.constraint import Constraint
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
    top: tuple[tuple[int, float], ...] = ()
    """As of `Pick`."""


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
    logits: Logits,
    context: Context,
    sampler: Sampler,
    text: TextStream,
    ending: Ending,
    constraint: Constraint | None = None,
    look: Callable[[int], Ahead | None] = lambda limit: None,
) -> Iterator[TokenEvent]:
    """Generate from the last `logits` [vocab] of the prompt, which is what `context` holds. `look`: given how many
    tokens there can be, what computes some of them ahead.

    One more token can be generated than the context has room for: the last token is not fed back.
    """
    stops = StopStrings(ending.stop_strings)
    limit = min(ending.max_new_tokens, context.capacity - context.length + 1)
    for count, pick in enumerate(_picks(logits, context, sampler, constraint, limit, look(limit)), 1):
        if ending.cancelled():
            yield TokenEvent(_rest(text, stops), finish_reason=CANCELLED)
            return
        ended = pick.token_id in ending.eos_token_ids or pick.token_id in ending.stop_token_ids
        piece = stops.push("" if ended else text.push(pick.token_id))  # what ends an answer is none of its text
        reason = _finish_reason(pick.token_id, count, limit, stops, ending)
        if reason is not None:
            piece += _rest(text, stops)
            # the last characters may complete a stop string, which no longer is text
            reason = STOP_STRING if stops.found is not None else reason
        yield TokenEvent(piece, pick.token_id, pick.logprob, reason, pick.top)
        if reason is not None:
            return


def _picks(
    logits: Logits, context: Context, sampler: Sampler, constraint: Constraint | None, limit: int, ahead: Ahead | None
) -> Iterator[Pick]:
    """Token after token, each fed back when the next is asked for; tokens that a constraint forces, all at once."""
    count = 0
    cache = context if ahead is None else ahead
    while True:
        allowed = None if constraint is None else constraint.allowed()
        if ahead is not None and sampler.unsure(logits, ahead.rounding, allowed):
            logits = ahead.again()
        pick = sampler.pick(logits, allowed)
        count += 1
        yield pick
        forced = [] if constraint is None else constraint.accept(pick.token_id)[: max(0, limit - count - 1)]
        if constraint is None or not forced:
            logits = cache.step(pick.token_id)
            continue
        constraint.follow(forced)
        rows = cache.extend(np.array([pick.token_id, *forced], dtype=np.int64))
        for token, row in zip(forced, rows, strict=False):
            count += 1
            yield sampler.given(row, token)
        logits = rows[-1]


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
