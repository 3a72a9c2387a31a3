"""Whose turn it is on something that serves one at a time: a session's KV cache.

The lock is held only while something computes: by `ask` and `choose` for the whole of a question, by a stream for one
piece at a time. A stream that waits for its reader therefore blocks nobody: the next question takes the session over,
from whichever thread, and the stream has then ended as "cancelled".
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from edgevlm_runtime.errors import EdgeVLMError

_Shared = TypeVar("_Shared")


class Turn(Protocol):
    """Something that takes a turn."""

    @property
    def streaming(self) -> bool:
        """Whether others may end it: between two of its pieces nothing computes."""
        ...

    def cancel(self) -> None:
        """Ask it to end soon; from any thread."""
        ...

    def cancelled(self) -> bool:
        """Whether it was asked to."""
        ...

    def finish(self) -> None:
        """Its turn is over. Called once, under the lock."""
        ...


class Turns(Generic[_Shared]):
    """One shared thing and the turn that has it."""

    def __init__(self, shared: _Shared) -> None:
        self.lock = threading.Lock()
        self._shared: _Shared | None = shared
        self._active: Turn | None = None

    @contextmanager
    def hold(self, turn: Turn) -> Iterator[_Shared]:
        """The shared thing for a whole turn. Waits for another `hold`; ends a stream that is under way."""
        self.interrupt()
        with self.lock:
            shared = self.take(turn)
            try:
                yield shared
            finally:
                self._active = None
                turn.finish()

    @contextmanager
    def between(self) -> Iterator[None]:
        """While nothing computes; nobody's turn ends. Raises `EdgeVLMError` when closed."""
        with self.lock:
            self._opened()
            yield

    def interrupt(self) -> None:
        """Tell a stream under way that a newer question has come, so that it ends after the token being computed."""
        active = self._active
        if active is not None and active.streaming:
            active.cancel()

    def take(self, turn: Turn) -> _Shared:
        """Under the lock: `turn` begins; a stream that had its turn ends. Raises `EdgeVLMError` when closed."""
        shared = self._opened()
        if self._active is not None:
            self.end(self._active)
        self._active = turn
        return shared

    def end(self, turn: Turn) -> None:
        """Under the lock: end a stream's turn; nothing happens to one that has ended before."""
        if self._active is turn:
            self._active = None
            turn.finish()

    def cancel(self) -> None:
        """Cancel whatever is under way; from any thread, at any time."""
        active = self._active
        if active is not None:
            active.cancel()
            self.settle(active)

    def settle(self, turn: Turn) -> None:
        """End a cancelled stream that waits for its reader; one that computes will notice by itself. Never waits."""
        if turn.cancelled() and self.lock.acquire(blocking=False):
            try:
                self.end(turn)
            finally:
                self.lock.release()

    def close(self) -> None:
        """Let go of what is shared. Waits for `hold`; ends a stream that is under way."""
        self.interrupt()
        with self.lock:
            if self._active is not None:
                self.end(self._active)
            self._shared = None

    def _opened(self) -> _Shared:
        if self._shared is None:
            raise EdgeVLMError("the session is closed: open another one")
        return self._shared
