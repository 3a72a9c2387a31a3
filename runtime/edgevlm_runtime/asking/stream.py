"""An answer as it is made, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from edgevlm_runtime.asking.answer import Answer
from edgevlm_runtime.asking.prompt_run import Pieces, PromptRun
from edgevlm_runtime.asking.turns import Turns
from edgevlm_runtime.decoding.context import Context
from edgevlm_runtime.errors import EdgeVLMError


class AnswerStream:
    """An iterator over the pieces of an answer's text; `answer` is there once it is exhausted, closed or cancelled.

    Nothing runs before the first `next`, nor between two of them. Any thread may read on. A stream ends early, as
    "cancelled", when it is cancelled or closed, when the session is closed, and when the session gets another question.
    """

    def __init__(self, run: PromptRun, turns: Turns[Context], begin: Callable[[PromptRun, Context], Pieces]) -> None:
        """Made by `Session.stream`. `begin` gives the generator that answers."""
        self._run = run
        self._turns = turns
        self._begin = begin
        self._pieces: Pieces | None = None
        self._closed = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._closed:
            raise StopIteration
        if self._pieces is None:
            self._turns.interrupt()
        with self._turns.lock:
            piece = self._advance()
        if piece is None:
            raise StopIteration
        return piece

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def answer(self) -> Answer:
        """The answer. Raises `EdgeVLMError` while the stream is not finished."""
        self._turns.settle(self._run)
        if self._run.answer is None:
            raise EdgeVLMError("the answer is not finished: read the stream to its end first")
        return self._run.answer

    def cancel(self) -> None:
        """End the answer after the token being computed; from any thread. The answer then says "cancelled"."""
        self._run.cancel()
        self._turns.settle(self._run)

    def close(self) -> None:
        """Stop here. An answer that had begun ends as "cancelled". Waits for a token being computed for it."""
        self._closed = True
        self._run.cancel()
        with self._turns.lock:
            self._turns.end(self._run)

    def _advance(self) -> str | None:
        """The next piece, None at the end; the session is this stream's while it computes."""
        if self._pieces is None:
            self._pieces = self._begin(self._run, self._turns.take(self._run))
        elif self._run.cancelled():
            self._turns.end(self._run)
        piece = None
        try:
            piece = next(self._pieces, None)
        finally:
            if piece is None or self._run.cancelled():
                self._turns.end(self._run)
        return piece
