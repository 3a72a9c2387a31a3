"""The answer in the making: what is known of it so far, and the time each stage took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from edgevlm_runtime.asking.answer import Answer, Timings, Token
from edgevlm_runtime.decoding.generate import TokenEvent


class AnswerRecord:
    """Collects one answer. Time between `pause` and `resume`, which a stream's consumer takes, does not count."""

    def __init__(self, preprocess_ms: float) -> None:
        """`preprocess_ms`: what preparing the images took before the question came."""
        self.spent = {"preprocess": preprocess_ms, "vision": 0.0, "projector": 0.0, "prefill": 0.0}
        self.prompt_tokens = self.image_tokens = self.prefix_tokens = 0
        self.image_cache = "none"
        self.finish_reason: str | None = None
        self._pieces: list[str] = []
        self._token_ids: list[int] = []
        self._logprobs: list[float] = []
        self._top: list[tuple[tuple[int, float], ...]] = []
        self._busy_ms = preprocess_ms
        self._first_ms: float | None = None
        self._last_ms = 0.0
        self._resumed: float | None = time.perf_counter()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count what runs inside as time of `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent[stage] += (time.perf_counter() - start) * 1e3

    def add(self, event: TokenEvent) -> None:
        """Take in one step of the generation."""
        if event.text:
            self._pieces.append(event.text)
        if event.token_id is not None:
            self._token_ids.append(event.token_id)
            self._last_ms = self._elapsed()
            if self._first_ms is None:
                self._first_ms = self._last_ms
        if event.logprob is not None:
            self._logprobs.append(event.logprob)
        if event.top:
            self._top.append(event.top)
        self.finish_reason = event.finish_reason

    def pause(self) -> None:
        """The consumer has the turn."""
        self._busy_ms = self._elapsed()
        self._resumed = None

    def resume(self) -> None:
        """Work goes on."""
        self._resumed = time.perf_counter()

    def tokens(self, start: int) -> list[Token]:
        """What was generated so far, from the `start`-th token on."""
        return [
            Token(
                self._token_ids[place],
                self._logprobs[place] if self._logprobs else None,
                self._top[place] if self._top else (),
            )
            for place in range(start, len(self._token_ids))
        ]

    def answer(self) -> Answer:
        """The answer as it stands; `finish_reason` must be known."""
        return Answer(
            text="".join(self._pieces),
            token_ids=tuple(self._token_ids),
            logprobs=tuple(self._logprobs),
            finish_reason=self.finish_reason or "",
            timings=self._timings(),
            prompt_tokens=self.prompt_tokens,
            image_tokens=self.image_tokens,
            image_cache=self.image_cache,
            prefix_tokens_reused=self.prefix_tokens,
            top_logprobs=tuple(self._top),
        )

    def _timings(self) -> Timings:
        total = self._elapsed()
        first = total if self._first_ms is None else self._first_ms
        later = len(self._token_ids) - 1
        return Timings(
            **self.spent,
            decode_per_token=(self._last_ms - first) / later if later > 0 else 0.0,
            time_to_first_token=first,
            total=total,
        )

    def _elapsed(self) -> float:
        running = 0.0 if self._resumed is None else (time.perf_counter() - self._resumed) * 1e3
        return self._busy_ms + running
