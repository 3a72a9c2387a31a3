"""Tile splitting: SmolVLM and Idefics3 image processors.

    Processor(Options(image_token="<image>", tokens_per_tile=64, tile=512, longest_edge=2048))

The image is brought to `longest_edge`, then to multiples of the tile size; it is cut into rows and columns of tiles,
and the whole image, squeezed into one more tile, comes last. An image no larger than one tile is that tile alone.

Feeds `pixels`: uint8 [tiles, tile, tile, 3], RGB. The placeholder names each tile's place (`<row_1_col_2>`), as
`SmolVLMProcessor` of transformers writes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevlm_runtime.images.base import PreparedImage
from edgevlm_runtime.images.limits import check_options, check_resize, check_texts, check_tokens
from edgevlm_runtime.images.rgb import to_rgb

FAKE_TOKEN = "<fake_token_around_image>"
GLOBAL_TOKEN = "<global-img>"


@dataclass(frozen=True, slots=True)
class Options:
    """Sizes are in pixels."""

    image_token: str
    tokens_per_tile: int
    tile: int
    """Side of a tile, the vision encoder's image size."""
    longest_edge: int | None = None
    """Bring the long edge to this first."""
    exact: tuple[int, int] | None = None
    """Or resize to exactly this height and width first."""
    resample: int = Image.Resampling.LANCZOS.value
    """Pillow's resampling code, for every resize."""
    split: bool = True
    """Cut into tiles; otherwise the image becomes one tile."""
    edge_limit: int = 4096
    """Upper bound of the long edge after the first resize."""
    fake_token: str = FAKE_TOKEN
    global_token: str = GLOBAL_TOKEN

    def __post_init__(self) -> None:
        sides = {"tile": self.tile, "edge_limit": self.edge_limit, "longest_edge": self.longest_edge}
        check_options(self.image_token, self.tokens_per_tile, **sides)
        check_texts(self.image_token, fake_token=self.fake_token, global_token=self.global_token)
        if self.longest_edge is not None and self.exact is not None:
            raise ValueError("longest_edge and exact exclude each other")
        if min(self.exact or (1, 1)) <= 0:
            raise ValueError("exact must be positive")
        Image.Resampling(self.resample)


class Processor:
    """See the module's docstring."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def __call__(self, image: Image.Image) -> PreparedImage:
        tile = self.options.tile
        image = self._first_resize(to_rgb(image))
        if not self.options.split:
            return self._prepared([self._resize(image, (tile, tile))], rows=0, columns=0)
        image = self._resize(image, _whole_tiles(*image.size, tile))
        columns, rows = image.width // tile, image.height // tile
        check_tokens((columns * rows + 1) * self.options.tokens_per_tile, image.size)
        if rows <= 1 and columns <= 1:
            return self._prepared([image], rows=0, columns=0)
        corners = [(column * tile, row * tile) for row in range(rows) for column in range(columns)]
        tiles = [image.crop((left, top, left + tile, top + tile)) for left, top in corners]
        return self._prepared([*tiles, self._resize(image, (tile, tile))], rows, columns)

    def _first_resize(self, image: Image.Image) -> Image.Image:
        if self.options.exact is not None:
            height, width = self.options.exact
            return self._resize(image, (width, height))
        if self.options.longest_edge is not None:
            target = _long_edge_to(*image.size, self.options.longest_edge)
            return self._resize(image, _below(*target, self.options.edge_limit))
        return image

    def _resize(self, image: Image.Image, target: tuple[int, int]) -> Image.Image:
        check_resize(image.size, target)
        return image.resize(target, Image.Resampling(self.options.resample))

    def _prepared(self, tiles: list[Image.Image], rows: int, columns: int) -> PreparedImage:
        pixels: NDArray[np.uint8] = np.stack([np.asarray(tile) for tile in tiles])
        return PreparedImage(
            feeds={"pixels": pixels},
            tokens=len(tiles) * self.options.tokens_per_tile,
            placeholder=self._placeholder(rows, columns),
        )

    def _placeholder(self, rows: int, columns: int) -> str:
        options = self.options
        images = options.image_token * options.tokens_per_tile
        whole = f"{options.fake_token}{options.global_token}{images}{options.fake_token}"
        if rows == 0:
            return whole
        lines = [
            "".join(f"{options.fake_token}<row_{row}_col_{column}>{images}" for column in range(1, columns + 1))
            for row in range(1, rows + 1)
        ]
        return "\n".join(lines) + f"\n\n{whole}"


# The three functions below repeat the arithmetic of transformers' image_processing_pil_smolvlm.py (floating-point
# divisions, truncations, their order), because it decides which of two neighbouring sizes comes out.


def _long_edge_to(width: int, height: int, longest: int) -> tuple[int, int]:
    """Width and height with the long edge at `longest` and the short edge rounded up to an even number."""
    ratio = width / height
    if width >= height:
        short = int(longest / ratio)
        return longest, max(1, short + short % 2)
    short = int(longest * ratio)
    return max(1, short + short % 2), longest


def _below(width: int, height: int, limit: int) -> tuple[int, int]:
    """Width and height, shrunk so that the long edge is no more than `limit`."""
    ratio = width / height
    if width >= height and width > limit:
        return limit, max(1, int(limit / ratio))
    if height > width and height > limit:
        return max(1, int(limit * ratio)), limit
    return width, height


def _whole_tiles(width: int, height: int, tile: int) -> tuple[int, int]:
    """Width and height brought to multiples of `tile`: the long edge first, the short edge by the ratio, both up."""
    ratio = width / height
    if width >= height:
        width = math.ceil(width / tile) * tile
        return width, math.ceil(int(width / ratio) / tile) * tile
    height = math.ceil(height / tile) * tile
    return math.ceil(int(height * ratio) / tile) * tile, height
