"""Native resolution: Qwen2-VL, Qwen2.5-VL, Qwen3-VL, PaddleOCR-VL and Pixtral image processors.

    Processor(Options(image_token="<|image_pad|>", patch_size=14, merge_size=2, window_size=112))

The image keeps its aspect ratio and about its size; it is brought to multiples of patch_size * merge_size and cut into
patches. Patches are put window by window, every window padded to its full size, so that window attention in the graph
is a reshape to [W, L]. W is the number of windows and L the patches in one; without windows (window_size 0) W is 1 and
L is all patches. The merge_size * merge_size patches that become one image token stay together.

Feeds
    patches       uint8 [W*L, 3*patch_size*patch_size], each patch as [channel, row, column]; zeros in padding
    position_ids  int64 [W*L, 2], the patch's row and column in the image; zeros in padding
    valid         bool  [W*L], False in padding; with windows only
    grid_indices  int64 [W*L, 4], grid_weights float32 [W*L, 4], with a grid of learned positions only: the places of
                  the grid, row by row, around the patch, and their weights; with `grid_corners` the image's corner
                  patches lie on the grid's corners, else its edges on the edges

`order` gives, for each image token in raster order, its row in the merged output [W*L / merge_size**2]; it is None
where both orders are the same. `grid` is rows and columns of image tokens; text may stand behind each row of them. The
video axis is absent: an image is one frame that transformers repeats, and the graph folds the repetition into its
weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevlm_runtime.errors import ImageError
from edgevlm_runtime.images.base import PreparedImage
from edgevlm_runtime.images.limits import check_options, check_pixels, check_resize, check_texts, check_tokens
from edgevlm_runtime.images.rgb import to_rgb

_MAX_ASPECT_RATIO = 200


@dataclass(frozen=True, slots=True)
class Options:
    """Sizes are in pixels."""

    image_token: str
    patch_size: int = 14
    merge_size: int = 2
    """Patches along each side of what becomes one image token."""
    window_size: int = 0
    """Side of an attention window; 0 for a model without windows."""
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    resize: bool = True
    resample: int = Image.Resampling.BICUBIC.value
    """Pillow's resampling code."""
    position_grid: int = 0
    """Side of the tower's square grid of learned positions that images' own are interpolated from; 0 for none."""
    grid_corners: bool = True
    """Whether the first and last patch have the grid's outermost positions; else both are spread over one area."""
    enlarge: bool = False
    """Bring an image that is lower or narrower than one image token up to it first, its aspect ratio kept."""
    within: tuple[int, int] | None = None
    """Height and width that a larger image is brought into; in place of min_pixels and max_pixels."""
    row_end: str = ""
    """Text behind each row of image tokens but the last."""
    image_end: str = ""
    """Text behind the last row."""

    def __post_init__(self) -> None:
        check_options(self.image_token, patch_size=self.patch_size, merge_size=self.merge_size)
        check_options("", max(1, self.window_cells**2), merged_patch=self.factor)
        if self.max_pixels <= 0 or self.min_pixels < 0:
            raise ValueError("max_pixels must be positive")
        check_options("", window_size=self.window_size or None)
        if self.window_size and not self.window_cells:
            raise ValueError("window_size must be 0 or hold at least one merged patch")
        height, width = self.within or (None, None)
        check_options("", position_grid=self.position_grid or None, within_height=height, within_width=width)
        check_texts(self.image_token, row_end=self.row_end, image_end=self.image_end)
        Image.Resampling(self.resample)

    @property
    def factor(self) -> int:
        """Side of one image token."""
        return self.patch_size * self.merge_size

    @property
    def window_cells(self) -> int:
        """Image tokens along the side of a window."""
        return self.window_size // self.merge_size // self.patch_size

    @property
    def most_tokens(self) -> int:
        """Image tokens of an image of the largest size."""
        if self.within is None:
            return max(1, self.max_pixels // self.factor**2)
        return math.prod(-(-side // self.factor) for side in self.within)


class Processor:
    """See the module's docstring."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def __call__(self, image: Image.Image) -> PreparedImage:
        image = self._resized(to_rgb(image))
        self._check_parts(*image.size)
        pixels = np.asarray(image)
        grid = (pixels.shape[0] // self.options.factor, pixels.shape[1] // self.options.factor)
        rows = _window_rows(grid, self.options.window_cells)
        patches, valid = self._in_windows(self._patches(pixels), rows)
        position_ids, _ = self._in_windows(self._positions(grid), rows)
        order = None
        if self.options.window_cells:
            order = np.empty(grid[0] * grid[1], np.int64)
            order[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
        feeds = {"patches": patches, "position_ids": position_ids}
        if self.options.position_grid:
            options = self.options
            indices, weights = _interpolation(self._positions(grid), options.position_grid, options.grid_corners)
            feeds["grid_indices"], _ = self._in_windows(indices, rows)
            feeds["grid_weights"], _ = self._in_windows(weights, rows)
        if self.options.window_cells:
            feeds["valid"] = valid
        return PreparedImage(
            feeds=feeds,
            tokens=grid[0] * grid[1],
            placeholder=self._placeholder(*grid),
            order=order,
            grid=grid,
        )

    def _resized(self, image: Image.Image) -> Image.Image:
        factor = self.options.factor
        if self.options.resize:
            find = _smart_size if self.options.within is None else _size_within
            target = find(image.width, image.height, self.options)
            check_resize(image.size, target)
            return image.resize(target, Image.Resampling(self.options.resample))
        if image.width % factor or image.height % factor:
            raise ImageError(
                f"the model takes images whose sides are multiples of {factor} pixels, "
                f"this one is {image.width} x {image.height}"
            )
        return image

    def _check_parts(self, width: int, height: int) -> None:
        """Refuse what comes to too many patches, or too many pixels, with the padding of windows."""
        window = self.options.factor * max(1, self.options.window_cells)
        padded_width, padded_height = (-(-side // window) * window for side in (width, height))
        check_tokens(padded_width * padded_height // self.options.patch_size**2, (width, height))
        check_pixels(padded_width, padded_height, f"windows of an image of {width} x {height} pixels")

    def _placeholder(self, rows: int, columns: int) -> str:
        lines = [self.options.image_token * columns] * rows
        return self.options.row_end.join(lines) + self.options.image_end

    def _patches(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[height, width, 3] to [tokens, merge_size**2, 3 * patch_size**2], image tokens in raster order."""
        patch, merge = self.options.patch_size, self.options.merge_size
        rows, columns = pixels.shape[0] // self.options.factor, pixels.shape[1] // self.options.factor
        split = pixels.reshape(rows, merge, patch, columns, merge, patch, 3)
        return split.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns, merge * merge, 3 * patch * patch)

    def _positions(self, grid: tuple[int, int]) -> NDArray[np.int64]:
        """Row and column of every patch, [tokens, merge_size**2, 2], image tokens in raster order."""
        merge = self.options.merge_size
        rows, columns = grid
        indices = np.indices((rows * merge, columns * merge), np.int64)
        split = indices.reshape(2, rows, merge, columns, merge)
        return split.transpose(1, 3, 2, 4, 0).reshape(rows * columns, merge * merge, 2)

    def _in_windows(
        self, values: NDArray[np.generic], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """`values` [tokens, merge_size**2, n] in the order `rows` says, [W*L, n], and which rows are not padding."""
        present = rows >= 0
        padded = np.zeros((rows.size, *values.shape[1:]), values.dtype)
        padded[present] = values[rows[present]]
        return padded.reshape(-1, values.shape[2]), np.repeat(present, values.shape[1])


def _window_rows(grid: tuple[int, int], cells: int) -> NDArray[np.int64]:
    """Image tokens (raster numbers) window by window, each window row by row, -1 where a window leaves the image.

    Without its -1 entries this is `get_vision_window_index` of transformers.vision_utils.
    """
    rows, columns = grid
    raster = np.arange(rows * columns, dtype=np.int64).reshape(grid)
    if not cells:
        return raster.reshape(-1)
    padded = np.pad(raster, ((0, -rows % cells), (0, -columns % cells)), constant_values=-1)
    split = padded.reshape(padded.shape[0] // cells, cells, padded.shape[1] // cells, cells)
    return split.transpose(0, 2, 1, 3).reshape(-1)


def _interpolation(
    positions: NDArray[np.int64], side: int, corners: bool
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Places around each patch in a grid of `side` rows and columns, and their weights, [tokens, merge_size**2, 4].

    Bilinear, with `corners` as torch's `align_corners`: `get_vision_interpolation_indices_and_weights` of
    transformers.vision_utils, in its arithmetic.
    """
    near, shares = [], []
    for axis in (0, 1):
        places = positions[..., axis]
        last = np.float32(places.max())
        if corners:
            exact = places.astype(np.float32) * np.float32(side - 1) / max(last, np.float32(1))
        else:
            exact = (places.astype(np.float32) + np.float32(0.5)) * np.float32(side) / (last + 1) - np.float32(0.5)
        floor = np.floor(exact)
        steps = np.arange(2)
        near.append((floor[..., None].astype(np.int64) + steps).clip(0, side - 1))
        shares.append((1 - np.abs((exact - floor)[..., None] - steps.astype(np.float32))).clip(0))
    shape = (*positions.shape[:2], 4)
    indices = (near[0][..., :, None] * side + near[1][..., None, :]).reshape(shape)
    return indices, (shares[0][..., :, None] * shares[1][..., None, :]).reshape(shape).astype(np.float32)


def _smart_size(width: int, height: int, options: Options) -> tuple[int, int]:
    """Width and height, multiples of `options.factor`, with between min_pixels and max_pixels pixels.

    The arithmetic of `smart_resize` in transformers, its rounding half to even and its limit on the aspect ratio.
    """
    factor = options.factor
    if options.enlarge and height < factor:
        width, height = round(width * factor / height), factor
    if options.enlarge and width < factor:
        width, height = factor, round(height * factor / width)
    if max(height, width) / min(height, width) > _MAX_ASPECT_RATIO:
        raise ImageError(
            f"the image is too thin ({width} x {height} pixels): this model takes aspect ratios up to "
            f"{_MAX_ASPECT_RATIO}: crop or pad it first"
        )
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    if new_height * new_width > options.max_pixels:
        beta = math.sqrt((height * width) / options.max_pixels)
        new_height = max(factor, math.floor(height / beta / factor) * factor)
        new_width = max(factor, math.floor(width / beta / factor) * factor)
    elif new_height * new_width < options.min_pixels:
        beta = math.sqrt(options.min_pixels / (height * width))
        new_height = math.ceil(height * beta / factor) * factor
        new_width = math.ceil(width * beta / factor) * factor
    return new_width, new_height


def _size_within(width: int, height: int, options: Options) -> tuple[int, int]:
    """Width and height, multiples of `options.factor`, of an image brought into `options.within` where it is larger.

    The arithmetic of `get_resize_output_image_size` in transformers: down to whole pixels, then up to whole tokens.
    """
    most_height, most_width = options.within or (height, width)
    ratio = max(height / most_height, width / most_width)
    if ratio > 1:
        height, width = math.floor(height / ratio), math.floor(width / ratio)
    factor = options.factor
    return -(-width // factor) * factor, -(-height // factor) * factor
