"""A camera that never stops: read and decoded in a thread of its own, so that what is taken is the newest there is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from av.video.frame import VideoFrame

from edgevlm.watch.sources.base import Picture, SourceLost
from edgevlm.watch.sources.reading.decoding import Colours, Opening, whole_frames
from edgevlm.watch.sources.reading.newest import Newest
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError, reason

WITHOUT_A_PICTURE = 4.0
"""Times the timeout: data comes, and no whole picture. Some cameras send one that stands alone every ten seconds."""
JOIN_S = 2.0

Arrived: TypeAlias = tuple[VideoFrame, float]
Frames: TypeAlias = Callable[[Newest[Arrived], threading.Event], Iterator[Arrived]]


@dataclass(frozen=True, slots=True)
class Stream:
    """A source of live pictures."""

    opening: Opening
    status: Status
    ends: bool = False
    """Whether the end of it is one; else somebody pulled the plug."""
    read: Frames | None = None
    """Where pictures come from, if not from `opening` as fast as it gives them."""
    before: Callable[[], None] | None = None
    """Called first; what it raises is said instead of FFmpeg's words."""
    live: bool = True

    def pictures(self, stop: threading.Event) -> Iterator[Picture]:
        """Raises as `sources.base.Source` says."""
        place, gone, colours = Newest[Arrived](), threading.Event(), Colours()
        reader = threading.Thread(target=self._fill, args=(place, gone), name="edgevlm-source", daemon=True)
        reader.start()
        timeout = self.opening.timeout_s or float("inf")
        try:
            while (arrived := self._take(place, stop, timeout)) is not None:
                frame, captured = arrived
                if place.replaced:
                    self.status.count("frames_dropped", place.replaced)
                    place.replaced = 0
                pixels = colours.rgb(frame)
                yield Picture(pixels, "", time.time() - (time.monotonic() - captured), captured)
            if not stop.is_set() and not self.ends:
                raise SourceLost(f"{self.opening.shown}: it ended")
        finally:
            gone.set()
            reader.join(JOIN_S)

    def _take(self, place: Newest[Arrived], stop: threading.Event, timeout: float) -> Arrived | None:
        try:
            return place.take(stop, timeout + 1, WITHOUT_A_PICTURE * timeout)
        except SourceLost as error:
            said = str(error)
            raise (
                error if said.startswith(self.opening.shown) else SourceLost(f"{self.opening.shown}: {said}")
            ) from None

    def _fill(self, place: Newest[Arrived], gone: threading.Event) -> None:
        read = self.read or self._all
        try:
            if self.before is not None:
                self.before()
            for arrived in read(place, gone):
                place.put(arrived)
                if gone.is_set():
                    break
            place.end()
        except EdgeVLMError as error:
            place.end(error)
        except Exception as error:  # noqa: BLE001 -- whatever a decoder raises, the camera is opened again
            place.end(SourceLost(f"{self.opening.shown}: {reason(error)}"))

    def _all(self, place: Newest[Arrived], gone: threading.Event) -> Iterator[Arrived]:
        def waiting() -> None:
            if gone.is_set():
                raise SourceLost("nobody reads it any more")
            place.waiting()

        return whole_frames(self.opening, self.status, waiting, place.working)
