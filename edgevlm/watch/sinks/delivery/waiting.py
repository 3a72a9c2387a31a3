"""What waits for one sink, within bounds of number and of memory."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.sinks.base import Delivery, Pending

MOST_WAITING = 1000
MOST_BYTES = 64 << 20

Entry = Pending | Delivery


class Waiting:
    """Verdicts and notices in order; at most `MOST_WAITING` of them with `MOST_BYTES` of pictures, beside those of the
    newest.

    Above the bytes the oldest give up what they hold: notices go, verdicts lose the frames before them, then their own
    picture (`Delivery.has_picture`). Above the number the oldest notice goes, where there is none the oldest verdict.
    Not safe to use from several threads without a lock around it.
    """

    def __init__(self, most: int = MOST_WAITING, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._entries: deque[Entry] = deque()
        self._holders: Counter[int] = Counter()
        """By a frame's id, how many entries hold it: they share most frames."""
        self.held_bytes = 0
        self.verdicts = 0
        """How many verdicts wait."""

    def __bool__(self) -> bool:
        return bool(self._entries)

    def put(self, entry: Entry) -> int:
        """Let it wait; how many verdicts were lost for it."""
        lost = 0
        self._entries.append(self._counted(entry))
        while len(self._entries) > self._most:
            lost += isinstance(self._drop(self._oldest_notice()), Delivery)
        while self.held_bytes > self._most_bytes and (place := self._oldest_with_pictures()) is not None:
            self._slim(place)
        return lost

    def take(self, notices: bool = True) -> Entry | None:
        """The oldest; notices whose verdict waits already are passed over, and all of them without `notices`."""
        while self._entries:
            entry = self._drop(0)
            if isinstance(entry, Delivery) or (notices and not self._overtaken(entry)):
                return entry
        return None

    def _overtaken(self, notice: Pending) -> bool:
        verdicts = (entry for entry in self._entries if isinstance(entry, Delivery))
        return any(verdict.frame.sequence == notice.frame.sequence for verdict in verdicts)

    def _oldest_notice(self) -> int:
        return next((place for place, entry in enumerate(self._entries) if isinstance(entry, Pending)), 0)

    def _oldest_with_pictures(self) -> int | None:
        """Of all but the newest."""
        older = range(len(self._entries) - 1)
        return next((place for place in older if self._entries[place].frame.pixels.size), None)

    def _slim(self, place: int) -> None:
        entry = self._entries[place]
        if isinstance(entry, Pending):
            self._drop(place)
            return
        slim = replace(entry, before=()) if entry.before else entry.without_picture()
        self._uncounted(entry)
        self._entries[place] = self._counted(slim)

    def _drop(self, place: int) -> Entry:
        entry = self._entries[place]
        del self._entries[place]
        return self._uncounted(entry)

    def _counted(self, entry: Entry) -> Entry:
        self.verdicts += isinstance(entry, Delivery)
        for frame in _frames(entry):
            self._holders[id(frame)] += 1
            if self._holders[id(frame)] == 1:
                self.held_bytes += frame.pixels.nbytes
        return entry

    def _uncounted(self, entry: Entry) -> Entry:
        self.verdicts -= isinstance(entry, Delivery)
        for frame in _frames(entry):
            self._holders[id(frame)] -= 1
            if not self._holders[id(frame)]:
                del self._holders[id(frame)]
                self.held_bytes -= frame.pixels.nbytes
        return entry


def _frames(entry: Entry) -> tuple[Frame, ...]:
    return (entry.frame, *entry.before) if isinstance(entry, Delivery) else (entry.frame,)
