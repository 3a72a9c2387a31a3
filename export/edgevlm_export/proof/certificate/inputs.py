"""The named inputs: pictures and questions that are the same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from edgevlm_export import inspection
from edgevlm_export.proof.selftest import picture

SEED = 20_240
_PARTS = inspection.seeds("validation")[-4:]
"""Parts that nothing was selected with: the last of the split."""


def _noise() -> Image.Image:
    pixels = np.random.default_rng(SEED).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _shapes(width: int, height: int) -> Image.Image:
    """Few, large, coloured shapes; `width` by `height` pixels."""
    image = Image.new("RGB", (width, height), (228, 222, 205))
    draw = ImageDraw.Draw(image)
    draw.rectangle((width // 10, height // 10, width // 2, height // 2), fill=(190, 30, 40))
    draw.ellipse((width // 2, height // 3, width - 8, height - 8), fill=(20, 90, 170))
    draw.polygon([(4, height - 4), (width // 3, height - 4), (width // 6, height * 2 // 3)], fill=(20, 130, 60))
    return image


def _part(number: int) -> Image.Image:
    return inspection.draw(inspection.part(_PARTS[number]))


IMAGES: dict[str, Callable[[], Image.Image]] = {
    "gradients": picture,
    "shapes": lambda: _shapes(320, 240),
    "wide": lambda: _shapes(480, 160),
    "tall": lambda: _shapes(120, 300),
    "noise": _noise,
    "dark": lambda: _shapes(200, 200).point(lambda value: value // 12),
    "part-1": lambda: _part(0),
    "part-2": lambda: _part(1),
}
"""By name: aspect ratios, textures and brightness that preprocessing and quantization treat differently."""

QUESTIONS = ("Describe this image.", "Is there a defect on this part?", "What colour is it?")
"""Asked about the images, in turn."""
TEXTS = (
    "Name three things that one can see on a machined part.",
    "Explain in one sentence what a camera does.",
    "Count from one to ten.",
)
"""Asked without an image."""


@dataclass(frozen=True, slots=True)
class NamedInput:
    """One prompt."""

    question: str
    image: str | None = None
    """A key of `IMAGES`."""

    def pictures(self) -> tuple[Image.Image, ...]:
        """None or one."""
        return () if self.image is None else (IMAGES[self.image](),)


def named_inputs() -> tuple[NamedInput, ...]:
    """Every picture with a question, then the texts."""
    seen = (NamedInput(QUESTIONS[number % len(QUESTIONS)], name) for number, name in enumerate(IMAGES))
    return (*seen, *(NamedInput(text) for text in TEXTS))
