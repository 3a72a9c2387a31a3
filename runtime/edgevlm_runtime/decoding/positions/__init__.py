"""Position ids for the decoder, by the scheme the manifest names (`DecoderInfo.positions`).

    positions = make_positions(manifest.decoder.positions)
    layout = SequenceLayout(images=encoded.images)          # where the images are among the prompt's tokens
    feeds = positions.feeds(layout, start, stop)            # decoder inputs for tokens start..stop of the sequence

`start..stop` may be any part of the sequence, beyond the prompt too: prefill of a whole prompt is (0, n), prefill after
a reused prefix of p tokens is (p, n), a decode step is (n, n + 1). The same token always gets the same position.

A scheme is a file in this package with a class `Positions`.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from edgevlm_runtime.decoding.positions.base import ImageSpan, PositionScheme, SequenceLayout
from edgevlm_runtime.errors import BundleError

__all__ = ["ImageSpan", "PositionScheme", "SequenceLayout", "make_positions"]


def make_positions(name: str) -> PositionScheme:
    """The scheme called `name`. Raises `BundleError` when this runtime does not know it."""
    module = _module(name)
    if module is None or not hasattr(module, "Positions"):
        raise BundleError(f"unknown position scheme in the bundle: '{name}': upgrade edgevlm-runtime")
    scheme: PositionScheme = module.Positions()
    return scheme


def _module(name: str) -> ModuleType | None:
    """The file of this package called `name`, None when there is none."""
    full = f"{__name__}.{name}"
    try:
        return importlib.import_module(full) if name.isidentifier() else None
    except ModuleNotFoundError as error:
        if error.name != full:
            raise
        return None
