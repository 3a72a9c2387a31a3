"""One picture over HTTP, within a time and a size, and only if it has changed."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

import httpx2

from edgevlm.watch.links.urls import shown
from edgevlm.watch.sources.base import SourceLost
from edgevlm.watch.sources.reading.address import credentials, without_credentials
from edgevlm_runtime.errors import EdgeVLMError, reason

NOT_MODIFIED, UNAUTHORIZED, FORBIDDEN = 304, 401, 403


class Fetcher:
    """Asks one address again and again over one connection."""

    def __init__(self, url: str, user: str, password: str, token: str) -> None:
        self.shown = shown(url)
        self._url = without_credentials(url)
        self._user, self._password = credentials(url, user, password)
        self._client = httpx2.Client(headers={"Authorization": f"Bearer {token}"} if token else {}, trust_env=False)
        self._auth: httpx2.Auth | None = None
        self._known: dict[str, str] = {}
        """What the server said of the picture that it gave last, sent back to it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, timeout_s: float, most: int, stop: threading.Event) -> bytes | None:
        """The picture's bytes, or None where it is still the last one.

        Raises `SourceLost` for what may pass, and `EdgeVLMError` for a wrong password, or another address.
        """
        try:
            found = self._get(timeout_s, most, stop)
            if isinstance(found, str):  # how it wants the password
                self._auth = self._wanted(found)
                found = self._get(timeout_s, most, stop)
        except httpx2.TimeoutException:
            raise SourceLost(f"{self.shown}: no answer in {timeout_s:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            raise SourceLost(f"{self.shown}: {reason(error)}") from None
        if isinstance(found, str):
            raise EdgeVLMError(f"{self.shown}: it wants another user or password")
        return found

    def forget(self) -> None:
        """The picture was of no use: ask for it again even if it has not changed."""
        self._known = {}

    def _get(self, timeout_s: float, most: int, stop: threading.Event) -> bytes | str | None:
        ends = time.monotonic() + timeout_s
        with self._client.stream(
            "GET", self._url, headers=self._known, auth=self._auth, timeout=timeout_s, follow_redirects=False
        ) as answer:
            if answer.status_code == UNAUTHORIZED:
                return answer.headers.get("www-authenticate", "")
            if answer.status_code == NOT_MODIFIED:
                return None
            self._check(answer)
            body = bytearray()
            for piece in answer.iter_bytes():
                body += piece
                if len(body) > most:
                    raise SourceLost(f"{self.shown}: its picture is larger than {most} bytes")
                if time.monotonic() > ends:
                    raise SourceLost(f"{self.shown}: no whole picture in {timeout_s:g} s")
                if stop.is_set():
                    break
            said = {"If-None-Match": "etag", "If-Modified-Since": "last-modified"}
            self._known = {ask: answer.headers[name] for ask, name in said.items() if name in answer.headers}
            return bytes(body)

    def _check(self, answer: httpx2.Response) -> None:
        if answer.is_redirect:
            place = shown(str(answer.headers.get("location", "")))
            raise EdgeVLMError(f"{self.shown}: it sends to another address: {place}: give that one")
        if answer.status_code == FORBIDDEN:
            raise EdgeVLMError(f"{self.shown}: it wants another user or password")
        if not answer.is_success:
            raise SourceLost(f"{self.shown}: it answers {answer.status_code} {answer.reason_phrase}")

    def _wanted(self, challenge: str) -> httpx2.Auth:
        if not self._user and not self._password:
            raise EdgeVLMError(f"{self.shown}: it wants a user and a password")
        if self._auth is not None:
            raise EdgeVLMError(f"{self.shown}: it wants another user or password")
        digest = "digest" in challenge.lower()
        return (httpx2.DigestAuth if digest else httpx2.BasicAuth)(self._user, self._password)
