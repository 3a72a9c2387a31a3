"""Who answers: threads of a bundle, each taking one request at a time off its line.

One thread by default: a graph already uses every core, so that two answers at once would each take twice as long.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from edgevlm.serve.conversation import Wanted
from edgevlm.serve.line import Full, Line
from edgevlm.serve.refusals import Refusal, of_error
from edgevlm_runtime.asking.answer import Answer, Token
from edgevlm_runtime.asking.choices import Choice
from edgevlm_runtime.asking.conversations import Conversations
from edgevlm_runtime.model import VLM

log = logging.getLogger(__name__)

LONGEST_PAUSE_S = 60
SHARE = 0.2
"""How much the last answer counts in what an answer takes here."""
STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer's text, and the tokens that came with it."""

    text: str
    tokens: list[Token]


@dataclass(frozen=True, slots=True)
class Done:
    """The end: the answer or verdict, and tokens that no piece had."""

    answer: Answer | Choice
    tokens: list[Token] = field(default_factory=list)


Event: TypeAlias = "Piece | Done | Refusal"
"""What a request gets to know. A refusal is the last."""


class Job:
    """A request on its way through line and thread. Made in the event loop that waits for it."""

    def __init__(self, client: Hashable, messages: list[dict[str, Any]], wanted: Wanted) -> None:
        self.client = client
        self.cancel = threading.Event()
        self.asked = time.monotonic()
        self.begun: float | None = None
        """When its thread took it."""
        self._messages, self._wanted = messages, wanted
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()

    async def events(self) -> AsyncIterator[Event]:
        """Until the end, or until the client has gone. Raises `Refusal`."""
        while (event := await self._events.get()) is not None:
            if isinstance(event, Refusal):
                raise event
            yield event
            if isinstance(event, Done):
                return

    def tell(self, event: Event | None) -> None:
        """From any thread; None when there is nobody to tell."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def work(self, conversations: Conversations) -> None:
        """Answer, in the thread that took it."""
        self.begun = time.monotonic()
        try:
            if not self.cancel.is_set():
                self.tell(self._choose(conversations) if self._wanted.choices else self._generate(conversations))
        except Exception as error:  # noqa: BLE001 -- whatever a request does, the next one has its turn
            self.tell(of_error(error))
        finally:
            self._messages = []  # the pictures are let go before the client has read its answer

    def _generate(self, conversations: Conversations) -> Done:
        given = 0
        with conversations.stream(self._messages, cancel=self.cancel, **self._wanted.generation) as stream:
            for text in stream:
                tokens = stream.tokens(given)
                given += len(tokens)
                self.tell(Piece(text, tokens))
            return Done(stream.answer, stream.tokens(given))

    def _choose(self, conversations: Conversations) -> Done:
        wanted = self._wanted
        return Done(conversations.choose(self._messages, wanted.choices, cancel=self.cancel, **wanted.weighing))


class Served:
    """A bundle, its line, its threads."""

    def __init__(self, name: str, vlm: VLM, contexts: int, waiting: int, threads: int) -> None:
        """`waiting`: requests in the line, at most; `threads`: answers made at once."""
        self.name, self.vlm = name, vlm
        self.created = int(Path(vlm.bundle.path).stat().st_mtime)
        self.fingerprint = f"edgevlm-{vlm.bundle.content_digest[:12]}"
        self.running = 0
        self._line: Line[Job] = Line(waiting)
        self._conversations = vlm.conversations(max(contexts, threads))
        self._seconds = 0.0
        """What an answer takes."""
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name} {number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Requests in the line."""
        return len(self._line)

    @property
    def alive(self) -> bool:
        """Whether requests are answered."""
        return all(thread.is_alive() for thread in self._threads)

    def put(self, job: Job) -> None:
        """Into the line. Raises `Refusal` (429), or has somebody else get it who has more waiting."""
        try:
            left = self._line.put(job.client, job)
        except Full:
            raise (stopping() if self._line.closed else self.full()) from None
        if left is not None:
            left.tell(self.full())

    def leave(self, job: Job) -> None:
        """The client has gone: out of the line at once, or out of the thread after the token being computed."""
        job.cancel.set()
        if not self._line.remove(job.client, job):
            job.tell(None)

    def full(self) -> Refusal:
        """429, with the time after which a place may be free."""
        seconds = max(1, min(LONGEST_PAUSE_S, math.ceil(self._seconds)))
        return Refusal(429, "too many requests wait: come again later", "queue_full", None, seconds)

    def close(self) -> None:
        """Nobody is let in any more; who waits gets 503."""
        for job in self._line.close():
            job.tell(stopping())

    def join(self) -> None:
        """Wait for the threads, a moment each; whoever waited for their answers has gone."""
        for thread in self._threads:
            thread.join(STOP_S)

    def _run(self) -> None:
        while (job := self._line.take()) is not None:
            begun = time.monotonic()
            self._count(1)
            try:
                job.work(self._conversations)
            finally:
                self._count(-1)
                self._seconds += SHARE * (time.monotonic() - begun - self._seconds)

    def _count(self, more: int) -> None:
        with self._lock:
            self.running += more


def stopping() -> Refusal:
    """503: the server ends."""
    return Refusal(503, "the server is stopping: ask another, or come again", "stopping", None, 5)
