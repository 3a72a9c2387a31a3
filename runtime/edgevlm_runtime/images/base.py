"""What every kind of image processing gives the rest of the runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """One image, ready for the vision encoder and for its place in the prompt."""

    feeds: dict[str, NDArray[np.generic]]
    """Vision-encoder inputs by name; uint8 pixels, normalised inside the graph."""
    tokens: int
    """Embedding rows the projector gives for this image, equal to the image tokens in `placeholder`."""
    placeholder: str
    """Text that replaces the image token in the rendered chat template, before tokenizing."""
    order: NDArray[np.int64] | None = None
    """Rows of the projector's output in prompt order, where they differ from the order of computation: [tokens], or
    [tokens, taps] with `weights`."""
    weights: NDArray[np.float32] | None = None
    """[tokens, taps]: how much each of the rows counts, where tokens are mixtures of several."""
    grid: tuple[int, int] | None = None
    """Rows and columns of image tokens, where positions depend on them (M-RoPE)."""


class ImageProcessor(Protocol):
    """Made from the manifest's `ImageProcessing` by `edgevlm_runtime.images.make_processor`."""

    def __call__(self, image: Image.Image) -> PreparedImage:
        """Process one decoded image of any mode and size. Raises `ImageError` when the model cannot take it."""
        ...
