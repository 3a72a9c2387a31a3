"""Cameras of this machine: Video4Linux."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgevlm.installed import installed
from edgevlm.watch.sources.base import Source, SourceLost
from edgevlm.watch.status import Status
from edgevlm_runtime.options import is_real, need

DEVICES = Path("/dev")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Table of a plan: `[source]` with `kind = "v4l2"`."""

    device: Path
    """/dev/video0; better a name that stays when another camera is plugged in: /dev/v4l/by-id/..."""
    size: str | None = None
    """"1280x720": one that the camera offers; it takes its own otherwise."""
    fps: float | None = None
    """Pictures a second; the camera's own otherwise."""
    pixels: str | None = None
    """What the camera is to send: "mjpeg", "yuyv422", ...; many are fast with "mjpeg" alone."""
    timeout_s: float = 5.0
    """Seconds without data after which the device is opened again."""

    def __post_init__(self) -> None:
        size = self.size is None or re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", self.size) is not None
        need(size, "size", self.size, "WIDTHxHEIGHT")
        need(self.fps is None or (is_real(self.fps) and self.fps > 0), "fps", self.fps, "a number above 0")
        need(self.pixels is None or self.pixels.isalnum(), "pixels", self.pixels, "a name like mjpeg or yuyv422")
        need(is_real(self.timeout_s) and self.timeout_s > 0, "timeout_s", self.timeout_s, "a number of seconds above 0")


def open_source(options: Options, status: Status) -> Source:
    """Raises `EdgeVLMError` where PyAV is not installed."""
    with installed("camera"):
        from edgevlm.watch.sources.reading.decoding import Opening
        from edgevlm.watch.sources.reading.stream import Stream

    wanted = {"video_size": options.size, "framerate": options.fps, "input_format": options.pixels}
    opening = Opening(
        address=str(options.device),
        shown=str(options.device),
        format="v4l2",
        options={name: str(value) for name, value in wanted.items() if value is not None},
        timeout_s=options.timeout_s,
    )
    return Stream(opening, status, before=lambda: need_device(options.device))


def need_device(device: Path) -> None:
    """Raise `SourceLost` for a device that is not there: it may be plugged in again."""
    if device.is_char_device():
        return
    there = sorted(str(path) for path in DEVICES.glob("video*"))
    known = f"there are {', '.join(there)}" if there else "this machine has no camera, or may not see it"
    raise SourceLost(f"{device}: no such camera: {known}")
