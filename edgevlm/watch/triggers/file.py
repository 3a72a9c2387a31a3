"""A file that appears or changes: a machine's note that a part is there, with the part's number in it perhaps."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from edgevlm.watch.status import Status
from edgevlm.watch.triggers.base import Trigger
from edgevlm.watch.triggers.waiting import LONGEST_TEXT, Asked, Waiting
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import is_real, need

MOST_BYTES = 4 * LONGEST_TEXT
"""Of a note, that are read."""
CLOSE_S = 2.0
CONDITION = "trigger file"

Version: TypeAlias = tuple[int, int, int]
"""Size, time of change, inode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Table of a plan: `[trigger]` with `kind = "file"`."""

    path: Path
    """What is in it is recorded, as text. One that is there at the start does not fire before it changes."""
    settle_s: float = 0.05
    """It is read when it has not changed for this long."""
    look_s: float = 0.02
    """Seconds from one look to the next: also what works on network drives."""

    def __post_init__(self) -> None:
        need(is_real(self.settle_s) and self.settle_s >= 0, "settle_s", self.settle_s, "a number of seconds, 0 or more")
        need(is_real(self.look_s) and self.look_s > 0, "look_s", self.look_s, "a number of seconds above 0")


def make_trigger(options: Options, status: Status) -> Trigger:
    """Looks from `start` on, in a thread of its own."""
    return Notes(options, status)


class Notes(Asked):
    """Each version of the file fires once, with the next frame."""

    def __init__(self, options: Options, status: Status) -> None:
        self._options, self._status = options, status
        self._waiting = Waiting("file", status)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Raises `EdgeVLMError` when there is no folder that the file could appear in."""
        path = self._options.path
        if not path.parent.is_dir():
            raise EdgeVLMError(f"no such folder: {path.parent}: the trigger waits for {path.name} in it")
        self._thread = threading.Thread(target=self._look, args=(_version(path),), name="edgevlm-file", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
        self._waiting.close()

    def _look(self, taken: Version | None) -> None:
        seen, since = taken, time.monotonic()
        while not self._stop.wait(self._options.look_s):
            version = _version(self._options.path)
            if version != seen:
                seen, since = version, time.monotonic()
            if version is None:
                taken = None
            elif version != taken and time.monotonic() - since >= self._options.settle_s and self._take():
                taken = version

    def _take(self) -> bool:
        try:
            with self._options.path.open("rb") as file:
                found = file.read(MOST_BYTES)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._status.raise_condition(CONDITION, f"{self._options.path} cannot be read: {error.strerror}", bad=True)
            return False
        self._status.clear_condition(CONDITION)
        self._waiting.put(" ".join(found.decode("utf-8", errors="replace").replace("\0", " ").split()))
        return True


def _version(path: Path) -> Version | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino
