"""The thread that posts: one record after the other, each until it is answered."""

from __future__ import annotations

import email.utils
import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgevlm.installed import installed
from edgevlm.watch.links.urls import without_path
from edgevlm.watch.sinks.spooling.kept import Kept
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError, reason
from edgevlm_runtime.reading import known

if TYPE_CHECKING:
    from httpx2 import Client

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
LONGEST_RETRY_AFTER_S = 3600.0
MOST_ANSWER = 64 * 1024
"""Bytes of an answer that are read, so that the connection can be used again."""
REFUSES_THE_RECORD = (400, 413, 415, 422)
JOIN_S = 1.0
CONNECTION, REFUSED, THREAD = "sink webhook connection", "sink webhook refused", "sink webhook thread"
Headers = Callable[[bytes, str], Mapping[str, str]]


class _Id(msgspec.Struct):
    id: str = ""


class _Again(Exception):
    """Not delivered, and to be tried again: why, and in how many seconds where the server said so."""

    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


class Courier:
    """Posts what is in a spool."""

    def __init__(
        self, url: str, kept: Kept, status: Status, timeout_s: float, ca: Path | None, headers: Headers
    ) -> None:
        """`headers`: made for each body and record id. Raises `EdgeVLMError` for certificates that cannot be read."""
        self.kept = kept
        self._url, self._status, self._timeout_s, self._headers = url, status, timeout_s, headers
        self._client = _client(timeout_s, ca)
        self._wake = threading.Event()
        self._stop_at: float | None = None
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="webhook-sink", daemon=True)

    def start(self) -> None:
        """Begin to post; returns at once."""
        self._thread.start()

    def add(self, payload: bytes) -> None:
        """Keep a record until it is answered. Raises `EdgeVLMError` when the disk takes nothing."""
        self.kept.add(payload)
        self._wake.set()

    def close(self, drain_s: float) -> None:
        """Post what is left for up to `drain_s`; never takes much longer, whatever the server does."""
        self._stop_at = time.monotonic() + drain_s
        self._wake.set()
        self._thread.join(drain_s + JOIN_S)
        self.kept.close()

    def _run(self) -> None:
        while not self._finished():
            try:
                found = self.kept.spool.read(self.kept.spool.next)
                if found is None:
                    self._pause(None)
                else:
                    self._deliver(*found)
                self._status.clear_condition(THREAD)
            except Exception as error:  # a disk that cannot be read: the thread lives on
                log.debug("posting failed", exc_info=True)
                self._status.raise_condition(THREAD, reason(error))
                self._pause(1.0)
        self._client.close()

    def _finished(self) -> bool:
        if self._stop_at is None:
            return False
        return self.kept.spool.waiting == 0 or self._failures > 0 or time.monotonic() >= self._stop_at

    def _deliver(self, number: int, body: bytes) -> None:
        try:
            answer = self._post(body)
        except _Again as failure:
            self._failures += 1
            self._status.count("sink_webhook_repeated")
            where = without_path(self._url)
            self._status.raise_condition(CONNECTION, f"{where} does not take records ({failure}): they wait on disk")
            self._pause(_pause_s(self._failures) if failure.after_s is None else failure.after_s)
            return
        self._failures = 0
        self.kept.acknowledge(number)
        self._status.clear_condition(CONNECTION)
        if answer in REFUSES_THE_RECORD:
            self._status.count("sink_webhook_refused")
            self._status.raise_condition(REFUSED, f"{without_path(self._url)} answered {answer} to a record: given up")
        else:
            self._status.count("sink_webhook_delivered")
            self._status.clear_condition(REFUSED)

    def _post(self, body: bytes) -> int:
        """The answer's status. Raises `_Again`."""
        from httpx2 import HTTPError, InvalidURL

        headers = self._headers(body, msgspec.json.decode(body, type=known(_Id)).id)
        try:
            with self._client.stream("POST", self._url, content=body, headers=dict(headers)) as response:
                status, after = response.status_code, response.headers.get("Retry-After")
                if 200 <= status < 300:
                    _skip(response.iter_raw(), self._timeout_s)
        except (HTTPError, InvalidURL, OSError, ValueError) as error:
            raise _Again(reason(error)) from error
        if 200 <= status < 300 or status in REFUSES_THE_RECORD:
            return status
        raise _Again(f"answer {status}", _after_s(after))

    def _pause(self, seconds: float | None) -> None:
        """Wait for a record, or for so long; the end interrupts both."""
        if seconds is None:
            self._wake.wait(1.0)
            self._wake.clear()
            return
        end = time.monotonic() + seconds
        while self._stop_at is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))


def _client(timeout_s: float, ca: Path | None) -> Client:
    with installed("camera"):
        import httpx2
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as error:
        raise EdgeVLMError(f"cannot use the certificates {ca}: {reason(error)}: they must be PEM files") from error
    return httpx2.Client(timeout=timeout_s, verify=context, follow_redirects=False)


def _skip(parts: Iterator[bytes], seconds: float) -> None:
    """Read an answer's end, not more than is worth a connection that can be used again."""
    end, size = time.monotonic() + seconds, 0
    for part in parts:
        size += len(part)
        if size > MOST_ANSWER or time.monotonic() > end:
            return


def _pause_s(failures: int) -> float:
    return float(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures - 1, 10))) * random.uniform(1.0, 1.25)


def _after_s(header: str | None) -> float | None:
    """Seconds that `Retry-After` asks for, as a number or a date."""
    if header is None:
        return None
    try:
        date = None if header.isdigit() else email.utils.parsedate_to_datetime(header)
        seconds = float(header) if date is None else date.timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER_S)
