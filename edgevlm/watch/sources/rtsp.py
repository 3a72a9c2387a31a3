"""Network cameras: RTSP."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgevlm.installed import installed
from edgevlm.watch.links.urls import shown
from edgevlm.watch.sources.base import Source
from edgevlm.watch.sources.reading.address import credentials, need_url, with_credentials
from edgevlm.watch.status import Status
from edgevlm_runtime.options import is_real, need

PROBE = {"analyzeduration": "200000", "fpsprobesize": "0"}
"""A camera's own description says what it sends: FFmpeg needs no second of it to find out."""
WAIT_FOR_LATE_PACKETS = {"udp": {"max_delay": "200000", "buffer_size": "4194304"}, "tcp": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Table of a plan: `[source]` with `kind = "rtsp"`."""

    url: str = field(repr=False)
    """rtsp://HOST:PORT/PATH, or rtsps://. What the camera's manual says; user and password may stand in it."""
    user: str = ""
    password: str = field(default="", repr=False)
    transport: str = "tcp"
    """"tcp" loses nothing; "udp" may be quicker, and pictures with lost packets are left out."""
    timeout_s: float = 5.0
    """Seconds without data after which the camera is opened again."""

    def __post_init__(self) -> None:
        need_url("url", self.url, ("rtsp", "rtsps"))
        need(self.transport in WAIT_FOR_LATE_PACKETS, "transport", self.transport, '"tcp" or "udp"')
        need(is_real(self.timeout_s) and self.timeout_s > 0, "timeout_s", self.timeout_s, "a number of seconds above 0")


def open_source(options: Options, status: Status) -> Source:
    """Raises `EdgeVLMError` where PyAV is not installed."""
    with installed("camera"):
        from edgevlm.watch.sources.reading.decoding import Opening
        from edgevlm.watch.sources.reading.stream import Stream

    user, password = credentials(options.url, options.user, options.password)
    how = {"rtsp_transport": options.transport, **PROBE}
    opening = Opening(
        address=with_credentials(options.url, user, password),
        shown=shown(options.url),
        options={**how, **WAIT_FOR_LATE_PACKETS[options.transport]},
        timeout_s=options.timeout_s,
    )
    return Stream(opening, status)
