"""Prompt lookup: guess what is said next from what was said before, and verify several guesses in one run.

Where the last tokens stood before, in the prompt or in an answer, what followed them there is guessed to follow again
("Inference with Reference", arXiv 2304.04487; Saxena's prompt lookup decoding, 2023). One run of the decoder gives the
logits after each guess; the loop draws its tokens from these as from those of single steps, and a guess that it does
not draw is forgotten with all behind it. So rules of sampling, penalties, forms and ends are untouched.

A run of several positions rounds otherwise than steps do (0.1 in a logit with int8 weights, whose kernels differ).
Answers stay those of steps: where two tokens are so close that rounding could decide, everything since the last run
that was exact is computed again by steps. How far runs round is measured beforehand by computing both ways, and on.
Off for states that are overwritten, which cannot be taken back token by token.
"""

from __future__ import annotations

import time
import weakref

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.decoding.ahead.gains import MOST, Gains
from edgevlm_runtime.decoding.context import Context
from edgevlm_runtime.decoding.decoder import Logits
from edgevlm_runtime.text.layout import Prompt

GRAMS = (3, 2)
"""Tokens that must have stood together before; the longer are tried first."""
REMEMBERED = 2048
"""Tokens of earlier answers over the same KV cache that are looked up too."""
_GAP = -1
"""Between texts, and for images: never guessed."""


class Said:
    """Tokens in order, and where any few of them stood last."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._next: dict[tuple[int, ...], int] = {}

    def add(self, token: int) -> None:
        """One more token."""
        for size in GRAMS:
            if len(self.tokens) >= size:
                self._next[tuple(self.tokens[-size:])] = len(self.tokens)
        self.tokens.append(token)

    def guess(self, most: int) -> list[int]:
        """What followed the last tokens before; what repeats itself is guessed to go on."""
        places = (self._next.get(tuple(self.tokens[-size:])) for size in GRAMS if len(self.tokens) >= size)
        place = next((place for place in places if place is not None), None)
        if place is None:
            return []
        period, guessed = len(self.tokens) - place, self.tokens[place : place + most]
        while len(guessed) < most:
            guessed.append(guessed[len(guessed) - period])
        return guessed[: guessed.index(_GAP)] if _GAP in guessed else guessed


class Lookups:
    """Prompt lookup for one bundle: what guesses are worth here, and what was answered over each KV cache."""

    def __init__(self) -> None:
        self.gains = Gains()
        self._answered: weakref.WeakKeyDictionary[Context, list[int]] = weakref.WeakKeyDictionary()

    def begin(self, context: Context, prompt: Prompt, limit: int) -> Ahead | None:
        """For an answer of at most `limit` tokens to `prompt`, which `context` holds; None where there is none."""
        if not context.can_forget:
            return None
        before = self._answered.setdefault(context, [])
        del before[:-REMEMBERED]
        before.append(_GAP)
        text = prompt.token_ids.copy()
        for span in prompt.images:
            text[span.start : span.stop] = _GAP
        return Ahead(context, self.gains, [*before, *text.tolist()], before, limit)


class Ahead:
    """The KV cache of one answer in the making, some tokens ahead of it. Takes the place of a `Context` in the loop."""

    def __init__(self, context: Context, gains: Gains, told: list[int], answered: list[int], limit: int) -> None:
        """`told`: tokens to look up in; `answered` is given those of the answer."""
        self._context, self._gains, self._answered, self._left = context, gains, answered, limit
        self._told = told
        self._said: Said | None = None
        self._guesses: list[tuple[int, Logits]] = []
        """Tokens that the cache holds beyond the answer, each with the logits after it."""
        self._probe: list[tuple[int, Logits]] = []
        """Tokens of a run that was taken back, to be compared with steps."""
        self._trial: list[int] | None = None
        self._right = 0
        self._exact_length = context.length
        self._inexact: list[list[int]] = []
        """What was fed since the cache was last as steps leave it, as the loop gave it."""
        self._latest: Logits | None = None

    @property
    def rounding(self) -> float:
        """How far each of the logits given last may be from those that steps would have given."""
        return (self._gains.rounding or 0.0) if self._inexact else 0.0

    def step(self, token_id: int) -> Logits:
        """See `Context.step`."""
        row: Logits = self._after([token_id])[0]
        return row

    def extend(self, token_ids: NDArray[np.int64]) -> Logits:
        """See `Context.extend`; `token_ids` [n] are part of the answer."""
        return self._after(token_ids.tolist())

    def _after(self, tokens: list[int]) -> Logits:
        """The logits [n, vocab] after each of `tokens`."""
        self._note(tokens)
        if [token for token, _ in self._guesses[: len(tokens)]] == tokens:
            rows = np.stack([row for _, row in self._guesses[: len(tokens)]])
            del self._guesses[: len(tokens)]
            self._inexact.append(tokens)
        else:
            rows = self._computed(tokens)
        if self._inexact:
            self._latest = rows[-1]
        return rows

    def again(self) -> Logits:
        """The logits [vocab] given last, by steps."""
        begun = time.perf_counter()
        assert self._latest is not None  # something was given that was not exact
        before = self._latest.copy()
        self._guesses.clear()
        self._context.forget(self._exact_length)
        logits = before
        for tokens in self._inexact:
            logits = self._fed(tokens)[-1]
        self._inexact.clear()
        self._gains.compared(_difference(logits, before))
        self._gains.repeated(time.perf_counter() - begun)
        return logits

    def _computed(self, tokens: list[int]) -> Logits:
        """The rows after `tokens`, with guesses behind them where these pay."""
        if self._guesses:
            self._context.forget(self._context.length - len(self._guesses))
            self._guesses.clear()
        guessed = self._guess(len(tokens))
        place, begun = self._context.length, time.perf_counter()
        if not guessed:
            rows = self._fed(tokens)
            if len(tokens) == 1:
                self._gains.stepped(time.perf_counter() - begun)
            self._compare(tokens, rows)
            if self._inexact:
                self._inexact.append(tokens)
            return rows
        rows = self._context.extend(np.array([*tokens, *guessed], dtype=np.int64))
        self._gains.ran(len(guessed), time.perf_counter() - begun)
        count = len(tokens)
        if self._gains.rounding is None:
            self._context.forget(place)
            self._probe = list(zip([*tokens, *guessed], rows, strict=True))
            rows = self._fed(tokens)
            self._compare(tokens, rows)
            return rows
        if not self._inexact:
            self._exact_length = place
        self._inexact.append(tokens)
        self._guesses = list(zip(guessed, rows[count:], strict=True))
        return rows[:count]

    def _fed(self, tokens: list[int]) -> Logits:
        """As the loop does without guesses."""
        if len(tokens) == 1:
            return self._context.step(tokens[0])[None]
        return self._context.extend(np.array(tokens, dtype=np.int64))

    def _guess(self, fed: int) -> list[int]:
        """What to run along with so many tokens."""
        said = self._said
        if self._probe or said is None:
            return []
        room = min(self._left - 1, self._context.capacity - self._context.length - fed)
        guessed = said.guess(MOST)
        if guessed and self._trial is None:
            self._trial, self._right = guessed, 0
        return guessed[: self._gains.length(min(len(guessed), room))]

    def _note(self, tokens: list[int]) -> None:
        """The answer goes on: see what of the last guess came true."""
        if self._said is None:
            self._said = Said()
            for token in self._told:
                self._said.add(token)
        for token in tokens:
            self._said.add(token)
            self._answered.append(token)
            self._left -= 1
            if self._trial is None:
                continue
            right = token == self._trial[self._right]
            self._right += right
            if not right or self._right == len(self._trial):
                self._gains.came_true(self._right)
                self._trial = None

    def _compare(self, tokens: list[int], rows: Logits) -> None:
        """What a step gave, with what the run before gave at the same place."""
        if not self._probe:
            return
        tried = self._probe[: len(tokens)]
        del self._probe[: len(tokens)]
        if [token for token, _ in tried] == tokens:
            self._gains.compared(_difference(rows[-1], tried[-1][1]))
        else:
            self._probe.clear()


def _difference(one: Logits, other: Logits) -> float:
    with np.errstate(invalid="ignore"):  # of tokens that are impossible both ways
        return float(np.nanmax(np.abs(one - other)))
