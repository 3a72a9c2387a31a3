"""As many patches as a budget allows, pooled: Gemma 4's image processor.

    Processor(Options(image_token="<|image|>", start="<|image>", end="<image|>", max_tokens=280))

The image keeps its aspect ratio as nearly as its sides, multiples of patch_size * pool_size, can: it is made as large
as `max_tokens` image tokens allow, small images too. It is cut into patches; the pool_size * pool_size patches that
become one image token lie together.

Feeds, for P patches
    patches       uint8 [P, patch_size*patch_size*3], each patch as [row, column, channel]
    position_ids  int64 [P, 2], the patch's column and row in the image
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevlm_runtime.errors import ImageError
from edgevlm_runtime.images.base import PreparedImage
from edgevlm_runtime.images.limits import check_options, check_resize, check_texts
from edgevlm_runtime.images.rgb import to_rgb


@dataclass(frozen=True, slots=True)
class Options:
    """Sizes are in pixels."""

    image_token: str
    start: str
    """What stands before an image's tokens."""
    end: str
    """What stands behind them."""
    patch_size: int = 16
    pool_size: int = 3
    """Patches along each side of what becomes one image token."""
    max_tokens: int = 280
    """Image tokens of one image at most, and nearly as many of any."""
    resample: int = Image.Resampling.BICUBIC.value
    """Pillow's resampling code."""

    def __post_init__(self) -> None:
        check_options(self.image_token, self.max_tokens, patch_size=self.patch_size, pool_size=self.pool_size)
        check_options("", self.max_tokens * self.pool_size**2, pooled_patch=self.factor)
        check_texts(self.image_token, start=self.start, end=self.end)
        Image.Resampling(self.resample)

    @property
    def factor(self) -> int:
        """Side of one image token."""
        return self.patch_size * self.pool_size


class Processor:
    """See the module's docstring."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def __call__(self, image: Image.Image) -> PreparedImage:
        image, options = to_rgb(image), self.options
        target = _size(image.width, image.height, options)
        check_resize(image.size, target)
        if target != image.size:
            image = image.resize(target, Image.Resampling(options.resample))
        columns, rows = (side // options.factor for side in target)
        return PreparedImage(
            feeds={"patches": self._patches(np.asarray(image)), "position_ids": self._positions(rows, columns)},
            tokens=rows * columns,
            placeholder=options.start + options.image_token * (rows * columns) + options.end,
        )

    def _patches(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[height, width, 3] to [tokens * pool_size**2, patch_size**2 * 3], image tokens in raster order."""
        patch, pool, factor = self.options.patch_size, self.options.pool_size, self.options.factor
        rows, columns = pixels.shape[0] // factor, pixels.shape[1] // factor
        split = pixels.reshape(rows, pool, patch, columns, pool, patch, 3)
        return split.transpose(0, 3, 1, 4, 2, 5, 6).reshape(-1, patch * patch * 3)

    def _positions(self, rows: int, columns: int) -> NDArray[np.int64]:
        """Column and row of every patch, in the order of `_patches`."""
        pool = self.options.pool_size
        places = np.indices((rows * pool, columns * pool), np.int64)[::-1]
        return places.reshape(2, rows, pool, columns, pool).transpose(1, 3, 2, 4, 0).reshape(-1, 2)


def _size(width: int, height: int, options: Options) -> tuple[int, int]:
    """Width and height, multiples of `options.factor`, within the budget.

    The arithmetic of `get_aspect_ratio_preserving_size` in transformers. Raises `ImageError` for what it refuses.
    """
    factor, patches = options.factor, options.max_tokens * options.pool_size**2
    budget = patches * options.patch_size**2
    scale = math.sqrt(budget / (height * width))
    new_height, new_width = (math.floor(scale * side / factor) * factor for side in (height, width))
    longest = options.max_tokens * factor
    if not new_height and new_width:
        new_height, new_width = factor, min(width // height * factor, longest)
    elif not new_width and new_height:
        new_height, new_width = min(height // width * factor, longest), factor
    if not new_height or not new_width or new_height * new_width > budget:
        raise ImageError(f"the image is too thin ({width} x {height} pixels): crop or pad it first")
    return new_width, new_height
