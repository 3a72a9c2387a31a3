"""A picture file as a source's picture."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from edgevlm.watch.sources.base import Picture
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import ImageError
from edgevlm_runtime.images.load import load_image

log = logging.getLogger(__name__)


def picture_of(file: Path, status: Status) -> Picture | None:
    """What `file` shows; None for one that cannot be decoded, which is counted and told."""
    try:
        return Picture(np.asarray(load_image(file)), str(file))
    except ImageError as error:
        status.count("decode_errors")
        log.warning("left out: %s", error)
        return None
