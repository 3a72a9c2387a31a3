"""Native resolution with tiles: LFM2-VL's image processor, for a SigLIP 2 tower of flexible resolution (NaFlex).

    Processor(Options(image_token="<image>", grid_side=16, grids=((2, 1), (1, 2), ...)))

A small image keeps its aspect ratio and about its size; it is brought to multiples of patch_size * merge_size and cut
into patches. A large one is cut into tiles, as many as the grid of the nearest aspect ratio has, and the whole image,
made small, comes last. The merge_size**2 patches that become one image token stay together.

Feeds, for T tiles with L patches in the longest
    patches   uint8 [T, L, patch_size*patch_size*3], each patch as [row, column, channel]; zeros in padding
    rows      float32 [T, L, grid_side], how much each row of the table of position embeddings counts; zeros in padding
    columns   float32 [T, L, grid_side], likewise for its columns
    valid     bool [T, L], False in padding

Position embeddings of an image of other than grid_side patches are resized bilinearly, with antialiasing, as
`torch.nn.functional.interpolate` does: an interpolation along rows and one along columns, so that two sets of weights
say all of it. `order` gives, for each image token, its row in the merged output [T*L / merge_size**2]; it is None where
nothing is padded.

Pixels are Pillow's. transformers has this processor for torchvision alone, whose resize of 8-bit images differs from
Pillow's by one level here and there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevlm_runtime.errors import ImageError
from edgevlm_runtime.images.base import PreparedImage
from edgevlm_runtime.images.kinds.dynamic import check_grids, cut, nearest_grid
from edgevlm_runtime.images.limits import check_options, check_resize, check_texts, check_tokens
from edgevlm_runtime.images.rgb import to_rgb
from edgevlm_runtime.options import MAX_PIXELS

Weights = NDArray[np.float32]
START, END, THUMBNAIL = "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"


@dataclass(frozen=True, slots=True)
class Options:
    """Sizes are in pixels."""

    image_token: str
    grid_side: int
    """Rows, and columns, of the tower's table of position embeddings."""
    grids: tuple[tuple[int, int], ...] = ()
    """Columns and rows of tiles that a large image may be cut into, see `nearest_grid`. None where images are not
    cut."""
    patch_size: int = 16
    merge_size: int = 2
    """Patches along each side of what becomes one image token."""
    tile: int = 512
    """Side of a tile."""
    min_tokens: int = 64
    max_tokens: int = 256
    """Image tokens of what is not cut."""
    tolerance: float = 2.0
    """An image is large where it has more than so many times the pixels of max_tokens."""
    thumbnail: bool = True
    """Whether the whole image follows its tiles."""
    resample: int = Image.Resampling.BILINEAR.value
    """Pillow's resampling code."""
    start: str = START
    end: str = END
    thumbnail_token: str = THUMBNAIL

    def __post_init__(self) -> None:
        check_options(self.image_token, self.max_tokens, patch_size=self.patch_size, tile=self.tile)
        check_options("", grid_side=self.grid_side, merged=self.factor)
        check_texts(self.image_token, start=self.start, end=self.end, thumbnail_token=self.thumbnail_token)
        if not 0 < self.min_tokens <= self.max_tokens:
            raise ValueError("min_tokens must be positive, and max_tokens no less")
        if not self.tolerance > 0:
            raise ValueError("tolerance must be positive")
        if self.tile % self.factor:
            raise ValueError("tile must be a multiple of patch_size * merge_size")
        check_grids(self.grids, least=2)
        self._check_memory()
        Image.Resampling(self.resample)

    def _check_memory(self) -> None:
        """All tiles are padded to the longest: as many patches, each with its pixels and its position's weights."""
        tiles = 1 + max((math.prod(grid) for grid in self.grids), default=0)
        check_options("", tiles * self.most_patches)
        if tiles * self.most_patches * max(self.grid_side, self.patch_size**2) > MAX_PIXELS:
            raise ValueError(f"grids, max_tokens, patch_size and grid_side must allow at most {MAX_PIXELS} values")

    @property
    def factor(self) -> int:
        """Side of one image token."""
        return self.patch_size * self.merge_size

    @property
    def most_patches(self) -> int:
        """What the tower takes of a tile, or of an image that is not cut."""
        tile = (self.tile // self.patch_size) ** 2 if self.grids else 0
        return max(self.max_tokens * self.merge_size**2, tile)


class Processor:
    """See the module's docstring."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def __call__(self, image: Image.Image) -> PreparedImage:
        image, options = to_rgb(image), self.options
        if not _is_large(*image.size, options):
            return self._prepared([self._whole(image)], 1, 1)
        columns, rows = nearest_grid(*image.size, options.tile, options.grids)
        check_tokens(columns * rows * (options.tile // options.patch_size) ** 2, image.size)
        whole = self._resized(image, (columns * options.tile, rows * options.tile))
        tiles = cut(whole, (columns, rows), options.tile)
        if options.thumbnail:
            tiles.append(self._whole(image))
        return self._prepared(tiles, rows, columns)

    def _whole(self, image: Image.Image) -> Image.Image:
        """All of an image, small enough for the tower. Raises `ImageError` for strips, which cannot be."""
        target = _whole_size(*image.size, self.options)
        if math.prod(target) > self.options.most_patches * self.options.patch_size**2:
            raise ImageError(f"the image is too thin ({image.width} x {image.height} pixels): crop or pad it first")
        return self._resized(image, target)

    def _resized(self, image: Image.Image, target: tuple[int, int]) -> Image.Image:
        check_resize(image.size, target)
        return image.resize(target, Image.Resampling(self.options.resample))

    def _prepared(self, tiles: list[Image.Image], rows: int, columns: int) -> PreparedImage:
        merged, side = self.options.merge_size**2, self.options.grid_side
        cells = [(tile.height // self.options.factor, tile.width // self.options.factor) for tile in tiles]
        counts = [height * width for height, width in cells]
        length = max(counts) * merged
        patches = np.zeros((len(tiles), length, 3 * self.options.patch_size**2), np.uint8)
        weights = np.zeros((2, len(tiles), length, side), np.float32)
        valid = np.arange(length) < np.array(counts)[:, None] * merged
        for number, (tile, grid) in enumerate(zip(tiles, cells, strict=True)):
            patches[number, valid[number]] = self._patches(np.asarray(tile), grid)
            weights[:, number, valid[number]] = self._position_weights(grid)
        places = np.flatnonzero(valid[:, ::merged])
        return PreparedImage(
            feeds={"patches": patches, "rows": weights[0], "columns": weights[1], "valid": valid},
            tokens=sum(counts),
            placeholder=self._placeholder(counts, rows, columns),
            order=None if valid.all() else places,
        )

    def _patches(self, pixels: NDArray[np.uint8], grid: tuple[int, int]) -> NDArray[np.uint8]:
        """[height, width, 3] to [tokens * merge_size**2, patch_size**2 * 3], image tokens in raster order."""
        patch, merge = self.options.patch_size, self.options.merge_size
        split = pixels.reshape(grid[0], merge, patch, grid[1], merge, patch, 3)
        return split.transpose(0, 3, 1, 4, 2, 5, 6).reshape(-1, patch * patch * 3)

    def _position_weights(self, grid: tuple[int, int]) -> Weights:
        """Of rows and of columns, [2, tokens * merge_size**2, grid_side], in the order of `_patches`."""
        merge, side = self.options.merge_size, self.options.grid_side
        by_row, by_column = (interpolation(side, cells * merge).reshape(cells, merge, side) for cells in grid)
        shape = (grid[0], grid[1], merge, merge, side)
        rows = np.broadcast_to(by_row[:, None, :, None], shape)
        columns = np.broadcast_to(by_column[None, :, None, :], shape)
        return np.stack([rows, columns]).reshape(2, -1, side)

    def _placeholder(self, counts: list[int], rows: int, columns: int) -> str:
        options = self.options
        texts = [options.image_token * count for count in counts]
        if rows * columns > 1:
            places = [f"<|img_row_{row + 1}_col_{column + 1}|>" for row in range(rows) for column in range(columns)]
            places += [options.thumbnail_token] * (len(counts) - len(places))
            texts = [place + text for place, text in zip(places, texts, strict=True)]
        return options.start + "".join(texts) + options.end


def interpolation(source: int, target: int) -> Weights:
    """What each of `source` rows counts in each of `target` rows, [target, source]: bilinear, with antialiasing.

    In float32 throughout, as PyTorch computes it.
    """
    scale, half = np.float32(source) / np.float32(target), np.float32(0.5)
    reach = max(scale, np.float32(1))
    centers = (scale * (np.arange(target, dtype=np.float32) + half))[:, None]
    distances = np.abs(np.arange(source, dtype=np.float32) - centers + half) / reach
    weights = np.maximum(np.float32(1) - distances, np.float32(0))
    made: Weights = weights / weights.sum(axis=1, keepdims=True)
    return made


# The two functions below repeat the arithmetic of transformers' image_processing_lfm2_vl.py (floating-point
# divisions, roundings half to even, their order), because it decides which of two neighbouring sizes comes out.


def _whole_size(width: int, height: int, options: Options) -> tuple[int, int]:
    """Width and height, multiples of `options.factor`, of an image that is not cut."""
    factor = options.factor
    least, most = options.min_tokens * factor**2, options.max_tokens * factor**2
    new_height, new_width = (max(factor, round(side / factor) * factor) for side in (height, width))
    if new_height * new_width > most:
        beta = math.sqrt((height * width) / most)
        new_height, new_width = (max(factor, math.floor(side / beta / factor) * factor) for side in (height, width))
    elif new_height * new_width < least:
        beta = math.sqrt(least / (height * width))
        new_height, new_width = (math.ceil(side * beta / factor) * factor for side in (height, width))
    return new_width, new_height


def _is_large(width: int, height: int, options: Options) -> bool:
    """Whether an image is to be cut into tiles."""
    rounded = [max(options.patch_size, round(side / options.factor) * options.factor) for side in (height, width)]
    limit = options.max_tokens * options.patch_size**2 * options.merge_size**2 * options.tolerance
    return bool(options.grids) and rounded[0] * rounded[1] > limit
