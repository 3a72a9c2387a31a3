"""int4 in blocks of 32 with zero points, rounded to nearest."""

from __future__ import annotations

from edgevlm_export.precision.blocks import BlockOptions, Blockwise

HOLDER = Blockwise("int4", BlockOptions(bits=4, block=32, symmetric=False))
