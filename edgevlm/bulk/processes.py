"""Several processes on this machine, each with the bundle loaded, and each given the next group when it is free."""

from __future__ import annotations

import contextlib
import logging
import queue
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import msgspec

from edgevlm.bulk.asking import Task
from edgevlm.bulk.rows import Group, Result, encode, failed
from edgevlm_runtime import child
from edgevlm_runtime.errors import EdgeVLMError

log = logging.getLogger(__name__)

TRIES = 2
"""How often a group is asked whose process ended: what killed it may have been the picture, or something else."""
_PATIENCE_S = 5
_POLL_S = 0.2


class ProcessEnded(Exception):
    """The process of an asker is gone."""


class AskerProcess:
    """An asker in a process of its own."""

    def __init__(self, task: Task) -> None:
        """Start and load. Raises `EdgeVLMError` with what the asker said, or when its process ended."""
        self._process = child.start(["-m", "edgevlm.bulk.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self._talk(task)
        except ProcessEnded as error:
            raise EdgeVLMError(f"{error} while it loaded the bundle: take fewer --workers") from error
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def answers(self, group: Group) -> list[Result]:
        """The results of a group, in order. Raises `ProcessEnded`."""
        return msgspec.convert(self._talk(group)["results"], list[Result])

    def close(self) -> None:
        """End the process, when it has answered."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._end()

    def kill(self) -> None:
        """End the process now; whoever waits for it learns that it ended."""
        self._process.kill()

    def _talk(self, message: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(encode(message).decode())
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except (OSError, ValueError):  # a pipe that broke, or was closed
            line = ""
        if not line.endswith("\n"):
            raise ProcessEnded(f"a process ended ({self._process.wait()})")
        reply: dict[str, Any] = msgspec.json.decode(line)
        if "missing" in reply:
            raise ModuleNotFoundError(reply["error"], name=reply["missing"])
        if "error" in reply:
            raise EdgeVLMError(reply["error"])
        return reply

    def _end(self) -> None:
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class Pool:
    """Processes at work on one stream of groups: iterate for the results, and `close` it. At any time no more groups
    are in memory than processes, and no more results than twice as many."""

    def __init__(self, task: Task, groups: Iterator[Group], processes: int) -> None:
        self._task = task
        self._groups = groups
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._done: queue.Queue[list[Result] | BaseException | None] = queue.Queue(2 * processes)
        self._running: set[AskerProcess] = set()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(processes)]

    def __iter__(self) -> Iterator[Result]:
        """Results as they come. Raises what reading the input raises, and what an asker cannot go on after."""
        for thread in self._threads:
            thread.start()
        left = len(self._threads)
        while left:
            found = self._done.get()
            if found is None:
                left -= 1
            elif isinstance(found, BaseException):
                raise found
            else:
                yield from found

    def close(self) -> None:
        """End every process, whatever it does."""
        self._stop.set()
        with self._lock:
            running = list(self._running)
        for process in running:
            process.kill()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(_PATIENCE_S)

    def pids(self) -> list[int]:
        """Ids of the processes that run now."""
        with self._lock:
            return [process.pid for process in self._running]

    def _work(self) -> None:
        process: AskerProcess | None = None
        try:
            while not self._stop.is_set() and (group := self._next()) is not None:
                process, results = self._ask(process, group)
                self._put(results)
        except BaseException as error:  # noqa: BLE001 (raised where results are read)
            self._put(error)
        finally:
            self._retire(process)
            self._put(None)

    def _next(self) -> Group | None:
        with self._lock:
            return next(self._groups, None)

    def _ask(self, process: AskerProcess | None, group: Group) -> tuple[AskerProcess | None, list[Result]]:
        """The results, and the process to ask next. Questions that end every process get an error."""
        for _ in range(TRIES):
            try:
                process = process or self._start()
                return process, process.answers(group)
            except ProcessEnded as error:
                self._retire(process)
                process = None
                if self._stop.is_set():
                    return None, []
                log.warning("%s: its questions are asked again in a new one", error)
        return None, [failed(ask, f"the process that asked ended, {TRIES} times") for ask in group.asks]

    def _start(self) -> AskerProcess:
        process = AskerProcess(self._task)
        with self._lock:
            self._running.add(process)
        if self._stop.is_set():
            process.kill()
        return process

    def _retire(self, process: AskerProcess | None) -> None:
        if process is not None:
            with self._lock:
                self._running.discard(process)
            process.close()

    def _put(self, found: list[Result] | BaseException | None) -> None:
        while not self._stop.is_set():
            try:
                self._done.put(found, timeout=_POLL_S)
            except queue.Full:
                continue
            return
