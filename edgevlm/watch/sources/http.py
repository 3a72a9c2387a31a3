"""Streams over HTTP: the MJPEG of cameras and phones, or any video that a server sends."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgevlm.installed import installed
from edgevlm.watch.links.urls import shown
from edgevlm.watch.sources.base import Source
from edgevlm.watch.sources.reading.address import credentials, need_url, with_credentials
from edgevlm.watch.status import Status
from edgevlm_runtime.options import is_real, need


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Table of a plan: `[source]` with `kind = "http"`."""

    url: str = field(repr=False)
    """http://HOST:PORT/PATH, or https://."""
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    """Sent as "Authorization: Bearer TOKEN"."""
    timeout_s: float = 5.0
    """Seconds without data after which the stream is opened again."""

    def __post_init__(self) -> None:
        need_url("url", self.url, ("http", "https"))
        need(self.token.isprintable(), "token", "...", "one line")
        need(is_real(self.timeout_s) and self.timeout_s > 0, "timeout_s", self.timeout_s, "a number of seconds above 0")


def open_source(options: Options, status: Status) -> Source:
    """Raises `EdgeVLMError` where PyAV is not installed."""
    with installed("camera"):
        from edgevlm.watch.sources.reading.decoding import Opening
        from edgevlm.watch.sources.reading.stream import Stream

    user, password = credentials(options.url, options.user, options.password)
    how = {"analyzeduration": "500000", "fpsprobesize": "0"}
    if options.token:
        how["headers"] = f"Authorization: Bearer {options.token}\r\n"
    opening = Opening(
        address=with_credentials(options.url, user, password),
        shown=shown(options.url),
        options=how,
        timeout_s=options.timeout_s,
    )
    return Stream(opening, status)
