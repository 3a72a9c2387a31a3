"""SIGTERM and SIGINT: the first asks for the end, the second ends the process at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGINT)


class Told:
    """Which signal came first; None while none did."""

    signal: int | None = None
    """A plain field that others look at: a handler that took a lock might wait for the code that it interrupted."""


@contextmanager
def caught() -> Iterator[Told]:
    """Note the first signal, and let the second do what it does to any process. In the main thread alone: elsewhere
    signals are whoever's they were."""
    told = Told()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return

    def note(number: int, _: FrameType | None) -> None:
        told.signal = number
        for one in ENDING:
            signal.signal(one, signal.SIG_DFL)

    before: dict[int, Any] = {one: signal.signal(one, note) for one in ENDING}
    try:
        yield told
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
