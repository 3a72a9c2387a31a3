"""What is asked: a text, the images that come with it, how to answer, and what may cancel it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import GenerationOptions
from edgevlm_runtime.vision.encoder import ImageInput


@dataclass(frozen=True, slots=True)
class Question:
    """One question. Raises `EdgeVLMError` when `caller` is not an event."""

    text: str
    images: tuple[ImageInput, ...] = ()
    """Those it is about; of a chat's question, those that come with it alone. They stand before its text."""
    preprocess_ms: float = 0.0
    """What preparing `images` took."""
    options: GenerationOptions = field(default_factory=GenerationOptions)
    caller: threading.Event | None = None
    """Set by the caller to cancel."""
    _own: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        if not (self.caller is None or callable(getattr(self.caller, "is_set", None))):
            raise EdgeVLMError(f"bad value for cancel: {self.caller!r}: it must be a threading.Event, or None")

    def cancel(self) -> None:
        """End the answer after the token being computed; from any thread."""
        self._own.set()

    def cancelled(self) -> bool:
        """Whether the caller wants no more."""
        return self._own.is_set() or (self.caller is not None and self.caller.is_set())
