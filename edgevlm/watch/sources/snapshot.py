"""Cameras that answer a request with one picture."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from edgevlm.installed import installed
from edgevlm.watch.sources.base import Picture, Source, SourceLost
from edgevlm.watch.sources.reading.address import need_url
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import ImageError
from edgevlm_runtime.images.load import load_image
from edgevlm_runtime.options import is_real, need

MIB = 1 << 20
PATIENCE = 5
"""Pictures in a row that cannot be decoded, after which the source counts as lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Table of a plan: `[source]` with `kind = "snapshot"`."""

    url: str = field(repr=False)
    """http://HOST/PATH, or https://."""
    every_s: float = 1.0
    """Seconds from one request to the next."""
    user: str = ""
    password: str = field(default="", repr=False)
    """Sent as the camera asks for it: basic or digest."""
    token: str = field(default="", repr=False)
    """Sent as "Authorization: Bearer TOKEN"."""
    timeout_s: float = 5.0
    """Seconds for one request, all of it."""
    max_mb: float = 32.0
    """A larger answer is not read."""
    repeat: bool = False
    """Whether a picture that has not changed since the last request, as the server says (304), is given again."""

    def __post_init__(self) -> None:
        need_url("url", self.url, ("http", "https"))
        for name in ("every_s", "timeout_s", "max_mb"):
            value = getattr(self, name)
            need(is_real(value) and value > 0, name, value, "a number above 0")
        need(self.token.isprintable(), "token", "...", "one line")
        need(isinstance(self.repeat, bool), "repeat", self.repeat, "true or false")


def open_source(options: Options, status: Status) -> Source:
    """Raises `EdgeVLMError` where httpx2 is not installed."""
    with installed("camera"):
        import httpx2  # noqa: F401 -- said here, rather than in the middle
    return Snapshots(options, status)


@dataclass(frozen=True, slots=True)
class Snapshots:
    """One picture a request."""

    options: Options
    status: Status
    live: bool = True

    def pictures(self, stop: threading.Event) -> Iterator[Picture]:
        """Raises as `sources.base.Source` says."""
        from edgevlm.watch.sources.reading.fetching import Fetcher

        options, refused, last = self.options, 0, None
        with Fetcher(options.url, options.user, options.password, options.token) as fetcher:
            while not stop.is_set():
                began = time.monotonic()
                fetched = fetcher.get(options.timeout_s, int(options.max_mb * MIB), stop)
                if fetched is None:
                    self.status.count("pictures_unchanged")
                    if last is not None and options.repeat:
                        yield Picture(last)
                elif stop.is_set():
                    return
                else:
                    try:
                        last = np.asarray(load_image(fetched))
                    except ImageError as error:
                        refused += 1
                        fetcher.forget()
                        self._refuse(fetcher.shown, error, refused)
                    else:
                        refused = 0
                        yield Picture(last)
                stop.wait(max(0.0, began + options.every_s - time.monotonic()))

    def _refuse(self, shown: str, error: ImageError, times: int) -> None:
        self.status.count("decode_errors")
        if times >= PATIENCE:
            raise SourceLost(f"{shown}: {error}")
