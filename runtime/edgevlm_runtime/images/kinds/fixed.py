"""Fixed-size processing: CLIP, SigLIP and LLaVA image processors.

    Processor(Options(image_token="<image>", tokens=576, height=336, width=336, shortest_edge=336, center_crop=True))

Steps, each optional, in the order of transformers: pad to a square, resize (to an exact size or by the short edge),
centre crop (which fills with zeros, that is black before normalisation, where the image is smaller).

Feeds `pixels`: uint8 [1, height, width, 3], RGB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevlm_runtime.errors import ImageError
from edgevlm_runtime.images.base import PreparedImage
from edgevlm_runtime.images.limits import check_options, check_pixels, check_resize, check_texts
from edgevlm_runtime.images.rgb import to_rgb


@dataclass(frozen=True, slots=True)
class Options:
    """Sizes are in pixels. `height` and `width` are what the vision encoder takes, and the crop's size.

    Resize by `shortest_edge` or to `exact`; neither for no resize.
    """

    image_token: str
    tokens: int
    """Image tokens for each image, all the same."""
    height: int
    width: int
    exact: tuple[int, int] | None = None
    """Height and width to resize to, whatever the aspect ratio."""
    shortest_edge: int | None = None
    longest_edge: int | None = None
    """Upper bound of the long edge, only with `shortest_edge`."""
    resample: int = Image.Resampling.BICUBIC.value
    """Pillow's resampling code."""
    center_crop: bool = False
    pad_color: tuple[int, int, int] | None = None
    """Pad to a square with this colour before anything else."""
    before: str = ""
    """What the placeholder has before the image tokens, and `after` behind them."""
    after: str = ""

    def __post_init__(self) -> None:
        exact_height, exact_width = self.exact or (None, None)
        edges = {"shortest_edge": self.shortest_edge, "longest_edge": self.longest_edge}
        edges |= {"exact_height": exact_height, "exact_width": exact_width}
        check_options(self.image_token, self.tokens, height=self.height, width=self.width, **edges)
        check_texts(self.image_token, before=self.before, after=self.after)
        if self.exact is not None and self.shortest_edge is not None:
            raise ValueError("exact and shortest_edge exclude each other")
        Image.Resampling(self.resample)


class Processor:
    """See the module's docstring."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._placeholder = f"{options.before}{options.image_token * options.tokens}{options.after}"

    def __call__(self, image: Image.Image) -> PreparedImage:
        options = self.options
        image = to_rgb(image)
        if options.pad_color is not None:
            image = _pad_to_square(image, options.pad_color)
        target = self._target(image.width, image.height)
        if target is not None:
            check_resize(image.size, target)
            image = image.resize(target, Image.Resampling(options.resample))
        pixels: NDArray[np.uint8] = np.asarray(image)
        if options.center_crop:
            pixels = _center_crop(pixels, options.height, options.width)
        if pixels.shape != (options.height, options.width, 3):
            raise ImageError(
                f"the model takes images of exactly {options.width} x {options.height} pixels, "
                f"this one comes to {pixels.shape[1]} x {pixels.shape[0]}"
            )
        return PreparedImage(
            feeds={"pixels": np.ascontiguousarray(pixels)[None]},
            tokens=options.tokens,
            placeholder=self._placeholder,
        )

    def _target(self, width: int, height: int) -> tuple[int, int] | None:
        """Size after the resize, (width, height); None for no resize."""
        options = self.options
        if options.exact is not None:
            return options.exact[1], options.exact[0]
        if options.shortest_edge is None:
            return None
        if options.longest_edge is not None:
            return _bounded(width, height, options.shortest_edge, options.longest_edge)
        # Integer arithmetic in this order: int(size * long / short), a float division, as transformers has it.
        long_edge = int(options.shortest_edge * max(width, height) / min(width, height))
        return (options.shortest_edge, long_edge) if width <= height else (long_edge, options.shortest_edge)


def _bounded(width: int, height: int, shortest: int, longest: int) -> tuple[int, int]:
    """Short edge to `shortest`, but the long edge to no more than `longest`: (width, height).

    The arithmetic of `get_size_with_aspect_ratio` in transformers.image_transforms.
    """
    short, long = float(min(width, height)), float(max(width, height))
    exact: float = shortest
    if long / short * shortest > longest:
        exact = longest * short / long
        shortest = round(exact)
    if min(width, height) == shortest:
        return width, height
    if width < height:
        return shortest, int(exact * height / width)
    return int(exact * width / height), shortest


def _pad_to_square(image: Image.Image, color: tuple[int, int, int]) -> Image.Image:
    if image.width == image.height:
        return image
    side = max(image.size)
    check_pixels(side, side, f"padding of an image of {image.width} x {image.height} pixels to a square")
    square = Image.new("RGB", (side, side), color)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def _center_crop(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The middle `height` x `width` of `pixels` [h, w, 3]; zeros where there is no image.

    Where the missing rows are odd in number, one side gets one more; which one is settled by
    `center_crop` in transformers.image_transforms, and it is not the same for cropping and for padding.
    """
    rows, columns = pixels.shape[:2]
    top, left = (rows - height) // 2, (columns - width) // 2
    if top >= 0 and left >= 0:
        return pixels[top : top + height, left : left + width]
    canvas_height, canvas_width = max(height, rows), max(width, columns)
    pad_top, pad_left = -((rows - canvas_height) // 2), -((columns - canvas_width) // 2)
    canvas = np.zeros((canvas_height, canvas_width, 3), np.uint8)
    canvas[pad_top : pad_top + rows, pad_left : pad_left + columns] = pixels
    top, left = max(0, top + pad_top), max(0, left + pad_left)
    return canvas[top : top + height, left : left + width]
