"""Encoded pictures: opened, turned, brought to 8 bits, and through each kind of image processing."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path

from edgevlm_runtime.bundle.manifest import ImageProcessing
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.images import LoadOptions, load_image, make_processor
from fuzz.mutate import mutate_bytes as mutate

__all__ = ["Surface", "mutate"]

KINDS = {
    "fixed": {"image_token": "<i>", "tokens": 4, "height": 28, "width": 28, "shortest_edge": 28, "center_crop": True},
    "tiles": {"image_token": "<i>", "tokens_per_tile": 4, "tile": 32, "longest_edge": 64, "split": True},
    "anyres": {
        "image_token": "<i>", "tile": 16, "side": 2, "sizes": [[16, 32], [32, 16], [48, 48]], "most_tiles": 2,
    },
    "native": {
        "image_token": "<i>", "patch_size": 4, "merge_size": 2, "window_size": 16, "min_pixels": 64, "max_pixels": 4096,
    },
    "dynamic": {"image_token": "<i>", "tokens_per_tile": 4, "tile": 16, "grids": [[1, 1], [2, 1], [1, 3]]},
    "naflex": {
        "image_token": "<i>", "grid_side": 4, "grids": [[2, 1], [1, 2]], "patch_size": 4, "tile": 16, "max_tokens": 90,
    },
    "pooled": {"image_token": "<i>", "start": "<s>", "end": "<e>", "patch_size": 4, "max_tokens": 20},
}  # fmt: skip
WITHIN = {"image_token": "<i>", "patch_size": 4, "merge_size": 2, "within": [64, 48], "row_end": "\n", "image_end": "."}
"""Of "native" as well: brought within a size, with text behind rows."""
OPTIONS = (LoadOptions(), LoadOptions(apply_exif_orientation=False, bit_depth=12))


class Surface:
    """See `fuzz.targets`."""

    def __init__(self, folder: Path) -> None:
        warnings.simplefilter("ignore")  # Pillow's, which are no findings
        kinds = [*KINDS.items(), ("native", WITHIN)]
        self._processors = [make_processor(ImageProcessing(kind, options)) for kind, options in kinds]

    def run(self, data: bytes) -> None:
        for options in OPTIONS:
            with contextlib.suppress(EdgeVLMError):
                load_image(data, options)
        picture = load_image(data)
        assert picture.mode == "RGB"
        for process in self._processors:
            with contextlib.suppress(EdgeVLMError):
                process(picture)
