"""From a container to whole pictures: PyAV behind the few words that streams and files need.

What is damaged is counted and never given: after a damaged picture those that refer to it are damaged too, however well
they decode, so nothing is given until the next one that stands alone.

FFmpeg ends a picture of an H.264 or H.265 stream where the next one begins, and so gives it one frame interval after
its last packet: 40 ms at 25 pictures a second. Of pictures that got lost as a whole, which happens with UDP alone, an
H.264 decoder says nothing; what follows them may be smeared until the next picture that stands alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import av
import av.error
import numpy as np
from av.codec.context import Flags, ThreadType
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from edgevlm.watch.sources.base import SourceLost
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError, reason
from edgevlm_runtime.options import MAX_PIXELS

HOLD_S = 10.0
"""How long nothing is given after damage, at most: some cameras send no picture that stands alone."""
DETECT = "crccheck+bitstream+buffer+explode"
"""The decoder says that a picture is damaged instead of guessing what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What is opened, and how."""

    address: str = field(repr=False)
    """May hold a password."""
    shown: str
    """What is said of it."""
    format: str | None = None
    """FFmpeg's name of a container or device; None finds out."""
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    """FFmpeg's."""
    timeout_s: float | None = None
    """Without data, both at the start and later; None waits for ever."""
    live: bool = True
    """Whether pictures are decoded without waiting for later ones."""


def nothing() -> None:
    """Called where nobody wants to know."""


def whole_frames(
    opening: Opening, status: Status, waiting: Callable[[], None] = nothing, working: Callable[[], None] = nothing
) -> Iterator[tuple[VideoFrame, float]]:
    """The pictures of a source until it ends, each with the `time.monotonic()` of its last data.

    `waiting` and `working` are called before and after each wait for data. Raises `SourceLost` for what cannot be
    reached or breaks off, `EdgeVLMError` for what holds no video that is known, or wants another password.
    """
    with _opened(opening) as container:
        stream = _video(container, opening)
        gate, packets = _Gate(status), container.demux(stream)
        while True:
            waiting()
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError) as error:
                raise _lost(error, opening) from None
            arrived = time.monotonic()
            working()
            if packet is None:
                return
            try:
                frames = packet.decode()
            except av.error.EOFError:
                return
            except (av.error.FFmpegError, ValueError):
                gate.damaged()
                continue
            for frame in frames:
                if isinstance(frame, VideoFrame) and gate.passes(frame):
                    yield frame, arrived


class _Gate:
    """Closed by damage, opened by a picture that stands alone."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._closed_at: float | None = None

    def damaged(self) -> None:
        self._status.count("decode_errors")
        if self._closed_at is None:
            self._closed_at = time.monotonic()

    def passes(self, frame: VideoFrame) -> bool:
        if frame.is_corrupt or frame.width * frame.height > MAX_PIXELS:
            self.damaged()
            return False
        if self._closed_at is None or frame.key_frame or time.monotonic() - self._closed_at > HOLD_S:
            self._closed_at = None
            return True
        return False


class Colours:
    """Decoded pictures as RGB arrays. One for each thread: it keeps what it knows of the last size and format."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def rgb(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """RGB [height, width, 3]."""
        return np.asarray(self._reformatter.reformat(frame, format="rgb24").to_ndarray(), dtype=np.uint8)


def _opened(opening: Opening) -> InputContainer:
    began = time.monotonic()
    try:
        return av.open(
            opening.address,
            format=opening.format,
            options=dict(opening.options),
            timeout=opening.timeout_s,
            metadata_errors="replace",
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        late = opening.timeout_s is not None and time.monotonic() - began >= opening.timeout_s
        raise _lost(TimeoutError() if late else error, opening) from None  # FFmpeg says what it made of half an answer


def _video(container: InputContainer, opening: Opening) -> VideoStream:
    stream = next(iter(container.streams.video), None)
    if stream is None:
        raise EdgeVLMError(f"{opening.shown}: there is no video in it")
    try:
        context = stream.codec_context
    except (av.error.FFmpegError, AttributeError):
        context = None
    if context is None:
        raise EdgeVLMError(f"{opening.shown}: its codec is not known: let the camera send H.264, H.265 or MJPEG")
    context.options = {**context.options, "err_detect": DETECT}
    context.thread_type, context.thread_count = ThreadType.SLICE, 1  # of several, each hides errors of the others
    if opening.live:
        context.flags |= Flags.low_delay
    return stream


def _lost(error: Exception, opening: Opening) -> EdgeVLMError:
    """What an error of FFmpeg means, in words; its own text holds the address, password and all."""
    if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
        return EdgeVLMError(f"{opening.shown}: it wants another user or password")
    unknown = (av.error.InvalidDataError, av.error.DecoderNotFoundError, av.error.DemuxerNotFoundError)
    if isinstance(error, unknown) or (isinstance(error, av.error.ArgumentError) and not opening.live):
        return EdgeVLMError(f"{opening.shown}: what it gives is no video that is known")
    if isinstance(error, av.error.ExitError | TimeoutError):
        return SourceLost(f"{opening.shown}: no data for {opening.timeout_s:g} s")
    if isinstance(error, av.error.EOFError):
        return SourceLost(f"{opening.shown}: it ended")
    said = getattr(error, "strerror", None) or type(error).__name__
    if said == "Input/output error":
        said = "it cannot be reached, or the connection broke"
    return SourceLost(f"{opening.shown}: {reason(Exception(said))}")
