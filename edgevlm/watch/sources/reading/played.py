"""A video file, read: every picture when there is time for it, or at the speed at which it was taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgevlm.watch.sources.base import Picture, SourceLost
from edgevlm.watch.sources.reading.decoding import Colours, Opening, whole_frames
from edgevlm.watch.sources.reading.newest import Newest
from edgevlm.watch.sources.reading.stream import Arrived, Stream
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "asf", "ogg", "mxf", "nut",
    "ivf", "obu", "h264", "hevc", "m4v", "mjpeg", "mpjpeg", "yuv4mpegpipe", "gif", "apng", "rm", "dv",
)  # fmt: skip
"""FFmpeg's names of files that hold a video. Playlists, which name others, even on other machines, are left out."""
OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(FORMATS)}


@dataclass(frozen=True, slots=True)
class Video:
    """Every picture of a file."""

    path: Path
    loop: bool
    status: Status
    live: bool = False

    def pictures(self, stop: threading.Event) -> Iterator[Picture]:
        """Raises `EdgeVLMError` for a file that is missing, or no video."""
        colours = Colours()
        for frame, _ in _frames(self.path, self.loop, self.status):
            if stop.is_set():
                return
            yield Picture(colours.rgb(frame), str(self.path))


@dataclass(frozen=True, slots=True)
class Played:
    """A file as a camera would send it."""

    path: Path
    loop: bool
    status: Status
    live: bool = True

    def pictures(self, stop: threading.Event) -> Iterator[Picture]:
        """Raises `EdgeVLMError` for a file that is missing, or no video."""
        return Stream(_opening(self.path), self.status, ends=True, read=self._at_its_speed).pictures(stop)

    def _at_its_speed(self, place: Newest[Arrived], gone: threading.Event) -> Iterator[Arrived]:
        began, first, last = time.monotonic(), 0.0, float("inf")
        for frame, _ in _frames(self.path, self.loop, self.status):
            at = last if frame.time is None else frame.time
            if at < last:  # the first of all, or the first again
                began, first = time.monotonic(), at
            last = at
            place.waiting()
            gone.wait(max(0.0, began + at - first - time.monotonic()))
            place.working()
            if gone.is_set():
                return
            yield frame, time.monotonic()


def _opening(path: Path) -> Opening:
    return Opening(address=f"file:{path}", shown=str(path), options=OPTIONS, live=False)


def _frames(path: Path, loop: bool, status: Status) -> Iterator[Arrived]:
    """Raises `EdgeVLMError`: a file is not mended by trying again."""
    if not path.is_file():
        raise EdgeVLMError(f"no such video file: {path}")
    while True:
        found = False
        try:
            for arrived in whole_frames(_opening(path), status):
                found = True
                yield arrived
        except SourceLost as error:
            raise EdgeVLMError(str(error)) from None
        if not found:
            raise EdgeVLMError(f"{path}: no picture of it can be decoded")
        if not loop:
            return
