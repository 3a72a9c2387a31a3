"""Dynamic tiles: GOT-OCR 2's image processor, as InternVL has it (Chen et al. 2024, "dynamic resolution").

    Processor(Options(image_token="<IMG_CONTEXT>", tokens_per_tile=256, tile=448, grids=((1, 1), (1, 2), (2, 1), ...)))

The image is squeezed into the grid of tiles whose aspect ratio is nearest to its own, and cut; where that is more than
one tile, the whole image, squeezed into one more, comes last.

Feeds `pixels`: uint8 [tiles, tile, tile, 3], RGB. The placeholder does not say where a tile is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevlm_runtime.images.base import PreparedImage
from edgevlm_runtime.images.limits import check_options, check_resize, check_texts, check_tokens
from edgevlm_runtime.images.rgb import to_rgb

MOST_TILES = 1024
START, END = "<img>", "</img>"
Grid = tuple[int, int]
"""Columns and rows of tiles."""


@dataclass(frozen=True, slots=True)
class Options:
    """Sizes are in pixels."""

    image_token: str
    tokens_per_tile: int
    tile: int
    """Side of a tile, the vision encoder's image size."""
    grids: tuple[Grid, ...] = ((1, 1),)
    """Those an image may be cut into, see `nearest_grid`."""
    resample: int = Image.Resampling.BICUBIC.value
    """Pillow's resampling code."""
    start: str = START
    """What the placeholder has before the image tokens, and `end` behind them."""
    end: str = END

    def __post_init__(self) -> None:
        check_options(self.image_token, self.tokens_per_tile, tile=self.tile)
        check_texts(self.image_token, start=self.start, end=self.end)
        check_grids(self.grids, least=1)
        if not self.grids:
            raise ValueError("grids must have one at least")
        Image.Resampling(self.resample)


class Processor:
    """See the module's docstring."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def __call__(self, image: Image.Image) -> PreparedImage:
        image, options = to_rgb(image), self.options
        columns, rows = nearest_grid(*image.size, options.tile, options.grids)
        check_tokens((columns * rows + 1) * options.tokens_per_tile, image.size)
        tiles = cut(self._resized(image, columns, rows), (columns, rows), options.tile)
        if len(tiles) > 1:
            tiles.append(self._resized(image, 1, 1))
        pixels: NDArray[np.uint8] = np.stack([np.asarray(tile) for tile in tiles])
        tokens = len(tiles) * options.tokens_per_tile
        return PreparedImage(
            feeds={"pixels": pixels},
            tokens=tokens,
            placeholder=f"{options.start}{options.image_token * tokens}{options.end}",
        )

    def _resized(self, image: Image.Image, columns: int, rows: int) -> Image.Image:
        target = columns * self.options.tile, rows * self.options.tile
        check_resize(image.size, target)
        return image.resize(target, Image.Resampling(self.options.resample))


def check_grids(grids: Sequence[Grid], least: int) -> None:
    """Raise `ValueError` for one with fewer than `least` tiles, or with more than can be."""
    if any(min(grid) < 1 or not least <= math.prod(grid) <= MOST_TILES for grid in grids):
        raise ValueError(f"grids must have from {least} to {MOST_TILES} tiles each")


def nearest_grid(width: int, height: int, tile: int, grids: Sequence[Grid]) -> Grid:
    """The grid whose aspect ratio is nearest to the image's: of equally near ones the first, or a later one of which
    the image has more than half the pixels.

    The arithmetic of `get_optimal_tiled_canvas` in transformers' image_processing_pil_got_ocr2.py.
    """
    nearest, found = math.inf, grids[0]
    for grid in grids:
        difference = abs(width / height - grid[0] / grid[1])
        fills = width * height > 0.5 * (tile * tile * grid[0] * grid[1])
        if difference < nearest or (difference == nearest and fills):
            nearest, found = difference, grid
    return found


def cut(image: Image.Image, grid: Grid, tile: int) -> list[Image.Image]:
    """Tiles row by row of an image that has the grid's size."""
    corners = [(column * tile, row * tile) for row in range(grid[1]) for column in range(grid[0])]
    return [image.crop((left, top, left + tile, top + tile)) for left, top in corners]
