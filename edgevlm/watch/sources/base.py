"""What every source is."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.errors import EdgeVLMError


class SourceLost(EdgeVLMError):
    """The source gives no pictures for now: unreachable, gone, or nothing that can be decoded. It may come back."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What a source gives; `sources.feed` makes a numbered frame of it."""

    pixels: NDArray[np.uint8]
    """RGB [height, width, 3]."""
    name: str = ""
    """The file it came from, where there is one."""
    captured_at: float = field(default_factory=time.time)
    """Unix time in seconds."""
    captured: float = field(default_factory=time.monotonic)


class Source(Protocol):
    """Gives pictures; made by the `open_source(options, status)` of its file, which touches nothing yet."""

    @property
    def live(self) -> bool:
        """Whether pictures pass by: then the newest is judged and others are dropped. Else every one is judged."""
        ...

    def pictures(self, stop: threading.Event) -> Iterator[Picture]:
        """Connect, and give pictures until the source ends or `stop` is set; waits are short or interruptible.

        Raises `SourceLost` when it cannot be reached or is gone (it is then opened again, after a pause), and
        `EdgeVLMError` for what trying again cannot mend. A picture that cannot be decoded is counted, not raised.
        """
        ...
