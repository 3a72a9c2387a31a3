"""transformers' image processors that there are for torchvision alone, with Pillow and PyTorch in its place.

What such a processor does with torchvision is to resize and to normalise; the rest is transformers' own code, which
runs as it is. Pillow's bilinear resize and torchvision's of 8-bit images differ by one level here and there.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.image_processing_backends import TorchvisionBackend
from transformers.utils import is_torchvision_available

MODULES = {"Lfm2VlImageProcessor": "transformers.models.lfm2_vl.image_processing_lfm2_vl"}
"""Classes that are known to use nothing of torchvision but what `PillowBackend` has, and where they are."""
JOINT = {"PixtralProcessor": "transformers.models.pixtral.processing_pixtral"}
"""Joint processors that transformers gives out with torchvision alone and that use nothing of it."""


class PillowBackend(TorchvisionBackend):
    """Stands between a processor's class and the one it is derived from."""

    def resize(self, image: Tensor, size: Any, resample: Any = None, antialias: bool = True, **kwargs: Any) -> Tensor:
        """uint8 [N, C, H, W] to exactly the height and width of `size`, antialiased."""
        method = Image.Resampling.BILINEAR if resample is None else Image.Resampling(int(resample))
        pictures = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in image]
        made = np.stack([np.asarray(one.resize((size.width, size.height), method)) for one in pictures])
        return torch.from_numpy(made).permute(0, 3, 1, 2).contiguous()

    def normalize(self, image: Tensor, mean: Any, std: Any, inplace: bool = False, **kwargs: Any) -> Tensor:
        """float32 [N, C, H, W], by channel."""
        mean, std = (torch.as_tensor(value, dtype=torch.float32)[:, None, None] for value in (mean, std))
        normalised: Tensor = (image - mean) / std
        return normalised


@cache
def find(name: str) -> Any:
    """The class that a checkpoint names, with this backend; None for one that transformers has with the PIL backend, or
    that is not known to do with it."""
    name = name.removesuffix("Fast")
    if name not in MODULES:
        return None
    own = getattr(_imported(MODULES[name]), name)
    return type(name, (own, PillowBackend), {"__module__": own.__module__})


def find_joint(name: str) -> Any:
    """The joint processor's class that a checkpoint names; None for one that is not among `JOINT`."""
    return getattr(_imported(JOINT[name]), name) if name in JOINT else None


def _imported(module: str) -> ModuleType:
    """The module, which names torchvision in its first lines, also where that is not installed."""
    if is_torchvision_available():
        return import_module(module)
    names = ["torchvision", "torchvision.transforms", "torchvision.transforms.v2"]
    empty = {name: ModuleType(name) for name in names}
    empty[names[-1]].functional = ModuleType("functional")  # type: ignore[attr-defined]
    sys.modules.update(empty)
    try:
        return import_module(module)
    finally:
        for name in names:
            del sys.modules[name]
