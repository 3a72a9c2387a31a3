"""The options of every command that reads pictures: how they are opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def image_options(function: F) -> F:
    """Decorator: `--exif-orientation` and `--image-depth`, passed by the names that `RuntimeOptions` has for them."""
    depth = click.option(
        "--image-depth",
        "image_bit_depth",
        type=click.IntRange(1, 32),
        metavar="BITS",
        help="Bits used in 16-bit, 32-bit and float pictures, e.g. 12. Default: what the file says, else all.",
    )
    orientation = click.option(
        "--exif-orientation/--no-exif-orientation",
        "apply_exif_orientation",
        default=None,
        help="Turn pictures as their EXIF data say, or not. Default: as the bundle says.",
    )
    return orientation(depth(function))
