"""Waiting for what other processes do, as long as a loaded machine takes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TypeVar

LONG = 60.0
_T = TypeVar("_T")


def until(found: Callable[[], _T], what: str, within: float = LONG) -> _T:
    """The first thing that `found` returns that counts as true."""
    end = time.monotonic() + within
    while not (value := found()):
        assert time.monotonic() < end, f"not within {within:g} s: {what}"
        time.sleep(0.02)
    return value


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
