"""The frames of the last seconds: what was to be seen before a trigger came."""

from __future__ import annotations

from collections import deque

from edgevlm.watch.frames.frame import Frame

MOST_BYTES = 256 << 20


class Ring:
    """Frames of the last `seconds`, in at most `most_bytes` of pixels: the oldest go first. For one thread."""

    def __init__(self, seconds: float, most_bytes: int = MOST_BYTES) -> None:
        self._seconds, self._most = seconds, most_bytes
        self._frames: deque[Frame] = deque()
        self.held_bytes = 0

    def add(self, frame: Frame) -> None:
        """Take a frame in, and let go of what is too old or too much; one that alone is too large is not kept."""
        if self._seconds <= 0:
            return
        self._frames.append(frame)
        self.held_bytes += frame.pixels.nbytes
        while self._frames and self._too_much(frame.captured):
            self.held_bytes -= self._frames.popleft().pixels.nbytes

    def before(self, frame: Frame) -> tuple[Frame, ...]:
        """Those of the last seconds before `frame`, oldest first, itself not among them."""
        oldest = frame.captured - self._seconds
        return tuple(one for one in self._frames if one.sequence < frame.sequence and one.captured >= oldest)

    def _too_much(self, now: float) -> bool:
        return self.held_bytes > self._most or self._frames[0].captured < now - self._seconds
