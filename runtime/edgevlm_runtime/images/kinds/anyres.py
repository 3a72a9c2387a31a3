"""Any-resolution tiles: the image processors of LLaVA-NeXT and LLaVA-OneVision, and how their models pack features.

    Processor(Options(image_token="<image>", tile=336, side=24, sizes=((336, 672), (672, 336), (672, 672))))

The image is brought, with its aspect ratio, into the one of `sizes` that keeps most of its pixels, padded with black
on both sides, and cut into tiles. The whole image, squeezed into one more tile, comes first.

Feeds `pixels`: uint8 [1 + tiles, tile, tile, 3], RGB. The projector gives side**2 + 1 rows for each tile, the last of
which is the end of a line. In the prompt stand the rows of the whole image, then those of all tiles line by line, what
is padding left out, each line with its end. Where that comes to far more than `most_tiles` tiles have, the lines are
interpolated: each of their tokens is a mixture of four rows (`PreparedImage.weights`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevlm_runtime.errors import ImageError
from edgevlm_runtime.images.base import PreparedImage
from edgevlm_runtime.images.limits import check_options, check_resize, check_tokens
from edgevlm_runtime.images.rgb import to_rgb

Ids = NDArray[np.int64]
Weights = NDArray[np.float32]
TAPS = 4
"""Rows that a token of interpolated lines is mixed from."""
TOLERANCE = 1.1
"""Lines are interpolated where each of their two sides is so many times too long."""


@dataclass(frozen=True, slots=True)
class Options:
    """Sizes are in pixels."""

    image_token: str
    tile: int
    """Side of a tile."""
    side: int
    """Image tokens along each side of a tile."""
    sizes: tuple[tuple[int, int], ...]
    """Heights and widths that an image may be brought to, multiples of `tile`: of equally good ones the first."""
    resample: int = Image.Resampling.BICUBIC.value
    """Pillow's resampling code, for every resize."""
    most_tiles: int | None = None
    """As many tiles' tokens an image may have, but for `TOLERANCE`; None for any number."""

    def __post_init__(self) -> None:
        check_options(self.image_token, self.side**2, tile=self.tile, side=self.side)
        if not self.sizes:
            raise ValueError("sizes must not be empty")
        for height, width in self.sizes:
            check_options("", height=height, width=width)
            if height % self.tile or width % self.tile:
                raise ValueError(f"sizes must be multiples of tile ({self.tile}): {height} x {width}")
        if self.most_tiles is not None and self.most_tiles <= 0:
            raise ValueError("most_tiles must be positive")
        Image.Resampling(self.resample)

    @property
    def rows(self) -> int:
        """Of the projector's output for each tile."""
        return self.side**2 + 1


class Processor:
    """See the module's docstring."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def __call__(self, image: Image.Image) -> PreparedImage:
        image, tile = to_rgb(image), self.options.tile
        height, width = _best_size(*image.size, self.options.sizes)
        rows, columns = height // tile, width // tile
        check_tokens((rows * columns + 1) * self.options.rows, image.size)
        order, weights = self._order(rows, columns, image.size)
        filled = _padded(self._resized(image, _inside(*image.size, width, height)), width, height)
        cut = filled.reshape(rows, tile, columns, tile, 3).transpose(0, 2, 1, 3, 4).reshape(-1, tile, tile, 3)
        whole = np.asarray(self._resized(image, (tile, tile)))[None]
        return PreparedImage(
            feeds={"pixels": np.concatenate([whole, cut])},
            tokens=len(order),
            placeholder=self.options.image_token * len(order),
            order=order,
            weights=weights,
        )

    def _resized(self, image: Image.Image, target: tuple[int, int]) -> Image.Image:
        check_resize(image.size, target)
        return image.resize(target, Image.Resampling(self.options.resample))

    def _order(self, rows: int, columns: int, size: tuple[int, int]) -> tuple[Ids, Weights | None]:
        """What `PreparedImage.order` and `.weights` are for an image of `size` (width, height) in a grid of tiles."""
        side = self.options.side
        numbers = np.arange((1 + rows * columns) * self.options.rows, dtype=np.int64).reshape(-1, self.options.rows)
        whole, line_end = numbers[0, :-1], numbers[0, -1]
        tiles = numbers[1:, :-1].reshape(rows, columns, side, side)
        lines = _unpadded(tiles.transpose(0, 2, 1, 3).reshape(rows * side, columns * side), *size)
        target = self._fewer(lines.shape, size)
        if target is None:
            ended = np.pad(lines, ((0, 0), (0, 1)), constant_values=line_end)
            return np.concatenate([whole, ended.reshape(-1)]), None
        ends = np.full((target[0], 1), line_end)
        order, weights = (
            np.concatenate([first, np.concatenate([mixed, end], axis=1).reshape(-1, TAPS)])
            for first, mixed, end in zip(_alone(whole), _interpolated(lines, target), _alone(ends), strict=True)
        )
        return order, weights

    def _fewer(self, shape: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int] | None:
        """Rows and columns that lines of `shape` are interpolated to; None where they stay. Raises `ImageError`."""
        rows, columns = shape
        if self.options.most_tiles is None:
            return None
        ratio = math.sqrt(rows * columns / (self.options.most_tiles * self.options.side**2))
        if ratio <= TOLERANCE:
            return None
        target = int(rows // ratio), int(columns // ratio)
        if min(target) == 0:
            raise ImageError(f"the image is too thin ({size[0]} x {size[1]} pixels): crop or pad it first")
        return target


def _padded(image: Image.Image, width: int, height: int) -> NDArray[np.uint8]:
    """[height, width, 3], the image in the middle of black; an odd pixel goes to the right, or below."""
    filled = np.zeros((height, width, 3), np.uint8)
    top, left = (height - image.height) // 2, (width - image.width) // 2
    filled[top : top + image.height, left : left + image.width] = np.asarray(image)
    return filled


def _interpolated(lines: Ids, target: tuple[int, int]) -> tuple[Ids, Weights]:
    """Which four of `lines` [rows, columns] each token of `target` (rows, columns) is mixed from, and in which shares,
    [*target, TAPS] both."""
    (below, row_shares), (right, column_shares) = (
        _bilinear(source, wanted) for source, wanted in zip(lines.shape, target, strict=True)
    )
    order = lines[below[:, None, :, None], right[None, :, None, :]]
    weights = row_shares[:, None, :, None] * column_shares[None, :, None, :]
    return order.reshape(*target, TAPS), weights.reshape(*target, TAPS)


def _alone(rows: Ids) -> tuple[Ids, Weights]:
    """Likewise for tokens that are one of `rows` each, [..., TAPS] both."""
    only = np.eye(1, TAPS, dtype=np.float32)[0]
    return np.repeat(rows[..., None], TAPS, axis=-1), np.broadcast_to(only, (*rows.shape, TAPS))


def _bilinear(source: int, target: int) -> tuple[Ids, Weights]:
    """Two of `source` places and their shares for each of `target` places, [target, 2] both: as PyTorch interpolates
    without antialiasing or aligned corners.

    In float32, but a product and the sum behind it are rounded once: processors have an instruction for that.
    """
    scale, centers = float(np.float32(source) / np.float32(target)), np.arange(target) + 0.5
    places = np.maximum((scale * centers - 0.5).astype(np.float32), np.float32(0))
    first = np.minimum(places.astype(np.int64), source - 1)
    share: Weights = places - first.astype(np.float32)
    return np.stack([first, np.minimum(first + 1, source - 1)], 1), np.stack([np.float32(1) - share, share], 1)


# The three functions below repeat the arithmetic of transformers' image_processing_utils.py and modeling_llava_next.py
# (floating-point divisions, roundings, their order), because it decides which of two neighbouring sizes comes out.


def _best_size(width: int, height: int, sizes: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """Height and width, of `sizes`, that keep most of the image's pixels; of several the ones that waste least."""
    best, most, least = sizes[0], 0, math.inf
    for size in sizes:
        scale = min(size[1] / width, size[0] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        wasted = size[0] * size[1] - kept
        if kept > most or (kept == most and wasted < least):
            best, most, least = size, kept, wasted
    return best


def _inside(width: int, height: int, outer_width: int, outer_height: int) -> tuple[int, int]:
    """Width and height of the image with its aspect ratio, as large as fits."""
    across, down = outer_width / width, outer_height / height
    if across < down:
        return outer_width, min(math.ceil(height * across), outer_height)
    return min(math.ceil(width * down), outer_width), outer_height


def _unpadded(lines: Ids, width: int, height: int) -> Ids:
    """Those of `lines` [rows, columns] that an image of `width` x `height` pixels fills."""
    rows, columns = lines.shape
    if width / height > columns / rows:
        cut = (rows - int(round(height * (columns / width), 7))) // 2
        return lines[cut : rows - cut]
    cut = (columns - int(round(width * (rows / height), 7))) // 2
    return lines[:, cut : columns - cut]
