"""Whose turn it is on a session's KV cache.

The lock is held only while something computes: by `ask` and `choose` for the whole of a question, by a stream for one
piece at a time. A stream that waits for its reader therefore blocks nobody: the next question takes the session over,
from whichever thread, and the stream has then ended as "cancelled".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgevlm_runtime.asking.answer import Answer
from edgevlm_runtime.asking.question import Question
from edgevlm_runtime.decoding.context import Context
from edgevlm_runtime.errors import EdgeVLMError


class Turns:
    """One KV cache and the question that it is working for."""

    def __init__(self, context: Context, ended: Callable[[Question, Answer], None]) -> None:
        """`ended` is told of every question that has an answer, under the lock, in the order of their ends."""
        self.lock = threading.Lock()
        self._context: Context | None = context
        self._ended = ended
        self._active: Question | None = None

    @contextmanager
    def hold(self, question: Question) -> Iterator[Context]:
        """The cache for the whole of a question. Waits for another `hold`; ends a stream that is under way."""
        self.interrupt()
        with self.lock:
            context = self.take(question)
            try:
                yield context
            finally:
                self._active = None
                if question.answer is not None:
                    self._ended(question, question.answer)

    def interrupt(self) -> None:
        """Tell a stream under way that a newer question has come, so that it ends after the token being computed."""
        active = self._active
        if active is not None and active.running is not None:
            active.cancel()

    def take(self, question: Question) -> Context:
        """Under the lock: give `question` the turn; a stream that had it ends. Raises `EdgeVLMError` when closed."""
        if self._context is None:
            raise EdgeVLMError("the session is closed: open another one")
        if self._active is not None:
            self.end(self._active)
        self._active = question
        return self._context

    def end(self, question: Question) -> None:
        """Under the lock: end a stream's question; nothing happens to one that has ended before.

        A stream that nobody holds any more leaves no trace: there is no telling how much of it was read.
        """
        if self._active is not question:
            return
        self._active = None
        pieces = question.running() if question.running is not None else None
        if pieces is not None:
            pieces.close()
            if question.answer is not None:
                self._ended(question, question.answer)

    def cancel(self) -> None:
        """Cancel whatever is under way; from any thread, at any time."""
        active = self._active
        if active is not None:
            active.cancel()
            self.settle(active)

    def settle(self, question: Question) -> None:
        """End a cancelled stream that waits for its reader; one that computes will notice by itself. Never waits."""
        if question.cancelled() and self.lock.acquire(blocking=False):
            try:
                self.end(question)
            finally:
                self.lock.release()

    def close(self) -> None:
        """Let go of the cache. Waits for `hold`; ends a stream that is under way."""
        self.interrupt()
        with self.lock:
            if self._active is not None:
                self.end(self._active)
            self._context = None
