"""Threads whose end is noticed: a watch whose judge has died must not look alive."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Worker(threading.Thread):
    """A thread that keeps the error it ended with, and says that it has ended."""

    def __init__(self, name: str, work: Callable[[], None], ended: threading.Event) -> None:
        """`ended` is set when `work` returns or raises."""
        super().__init__(name=name, daemon=True)
        self._work, self._ended = work, ended
        self.error: Exception | None = None

    def run(self) -> None:
        """Do the work."""
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 -- raised again by whoever started it
            self.error = error
        finally:
            self._ended.set()
