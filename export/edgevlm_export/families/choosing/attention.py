"""By the attention that a tower's own last layer pays to each patch.

The class token's, averaged over heads, as in FasterVLM (Zhang et al. 2024, "[CLS] Attention is All You Need for
Training-Free Visual Token Pruning") and for the dominant tokens of VisionZip (Yang et al. 2024); where a tower has no
class token, what a patch gets from all patches, as VisionZip does for SigLIP.
"""

from __future__ import annotations

from torch import Tensor

from edgevlm_export.families.choosing.base import Method, highest


def choose(rows: Tensor, scores: Tensor | None, number: int) -> Tensor:
    """Places of the highest scores [B, P]."""
    assert scores is not None
    return highest(scores, number)


METHOD = Method(choose, scored=True)
