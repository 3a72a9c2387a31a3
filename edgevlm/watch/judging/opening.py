"""A bundle loaded to look at frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgevlm_runtime import VLM, load
from edgevlm_runtime.options import MIB

IMAGES_KEPT = 32 * MIB
"""Bytes of image embeddings in memory: the tiles of one frame and more, since the next may have most of them again. No
whole frame of a camera is like one before it, and the runtime's own bound would fill, within hours or days, with what
nobody asks for again."""


def open_bundle(folder: Path, loading: Mapping[str, Any]) -> VLM:
    """`edgevlm_runtime.load`; `loading`: a plan's, or what goes before it. Raises `EdgeVLMError`."""
    return load(folder, **{"image_cache_bytes": IMAGES_KEPT, **loading})
