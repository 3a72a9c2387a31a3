"""int8 in blocks of 128: the most faithful of the small formats, and the fastest int8 for one row (decoding)."""

from __future__ import annotations

from edgevlm_export.precision.blocks import BlockOptions, Blockwise

HOLDER = Blockwise("int8b", BlockOptions(bits=8, block=128))
