"""Who is next: a bounded line in which clients take turns, however many requests each of them sends."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Full(Exception):
    """No place is left in the line, or it is closed."""


class Line(Generic[T]):
    """Safe from any thread. When it is full, whoever has the most waiting gives a place to a client with fewer."""

    def __init__(self, most: int) -> None:
        """`most`: that wait at once."""
        self._most = most
        self._waiting: OrderedDict[Hashable, deque[T]] = OrderedDict()
        """Clients in the order of their turns, none without something that waits."""
        self._count = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, client: Hashable, item: T) -> T | None:
        """Wait here; returns what had to leave for it. Raises `Full`."""
        with self._changed:
            if self._closed:
                raise Full
            left = self._make_room(client) if self._count >= self._most else None
            self._waiting.setdefault(client, deque()).append(item)
            self._count += 1
            self._changed.notify()
            return left

    def take(self) -> T | None:
        """The next one's, whose client then stands behind the others. Waits for one; None when the line is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._count or self._closed)
            if self._closed:
                return None
            client, items = self._waiting.popitem(last=False)
            item = items.popleft()
            if items:
                self._waiting[client] = items
            self._count -= 1
            return item

    def remove(self, client: Hashable, item: T) -> bool:
        """Whether it was still waiting; it then is not any more."""
        with self._changed:
            items = self._waiting.get(client, deque())
            if item not in items:
                return False
            items.remove(item)
            self._drop(client)
            return True

    def close(self) -> list[T]:
        """Nobody is let in or taken any more; returns who was still waiting."""
        with self._changed:
            left = [item for items in self._waiting.values() for item in items]
            self._waiting.clear()
            self._count, self._closed = 0, True
            self._changed.notify_all()
            return left

    @property
    def closed(self) -> bool:
        """Whether it is."""
        return self._closed

    def __len__(self) -> int:
        return self._count

    def _make_room(self, client: Hashable) -> T:
        greedy = max(self._waiting, key=lambda one: len(self._waiting[one]), default=None)
        own = len(self._waiting.get(client, ()))
        if greedy is None or len(self._waiting[greedy]) < own + 2:
            raise Full
        left = self._waiting[greedy].pop()
        self._drop(greedy)
        return left

    def _drop(self, client: Hashable) -> None:
        self._count -= 1
        if not self._waiting[client]:
            del self._waiting[client]
