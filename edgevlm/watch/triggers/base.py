"""What every trigger is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from edgevlm.watch.frames.frame import Frame


@dataclass(frozen=True, slots=True)
class Firing:
    """Why a frame is to be judged."""

    kind: str
    """The trigger's name."""
    text: str = ""
    """What came with it: a part's number, usually. Recorded, never interpreted."""
    at: float = field(default_factory=time.time)
    """Unix time in seconds."""
    fired: float = field(default_factory=time.monotonic)
    addressed: bool = False
    """Whether somebody asked for this very moment (a message, a coil): it then waits for its turn and gets a verdict in
    any case. Else a newer frame takes its place."""


class Trigger(Protocol):
    """Looks at every frame; made by the `make_trigger(options, status)` of its file, which touches nothing yet."""

    def start(self) -> None:
        """Begin to listen. Raises `EdgeVLMError` when it cannot, as for a port that is taken."""
        ...

    def fire(self, frame: Frame) -> Firing | None:
        """Whether this frame, the newest there is, is to be judged. Called for every frame, in milliseconds."""
        ...

    def close(self) -> None:
        """Stop listening; may be called twice, and without `start`."""
        ...


@runtime_checkable
class KeepsWaiting(Protocol):
    """A trigger that others ask: what they asked waits in it for a frame. Any thread may call both."""

    def overdue(self, asked_before: float) -> list[Firing]:
        """Those that asked before this moment of `time.monotonic()`, oldest first: they wait here no longer."""
        ...

    def oldest(self) -> float | None:
        """When the oldest of those that wait asked, by `time.monotonic()`; None where none does."""
        ...
