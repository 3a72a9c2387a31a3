"""What the decoder of a planned export would put into its KV cache, as its float32 graph computes it.

PyTorch's own modules run with the weights that the graph will have: the plan's transforms applied, nothing rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from edgevlm_export.graphs.neutral import PassThroughCache

ObserveKV = Callable[[int, Tensor, Tensor], None]
"""Told a layer's number, its keys (rotated) and its values, [batch, kv_heads, S, head_dim] each."""


class ObservedCache(PassThroughCache):
    """A cache for `StreamedModel.decode` that shows what it is given and keeps nothing."""

    def __init__(self, observe: ObserveKV) -> None:
        super().__init__()
        self._observe = observe

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        self._observe(layer_idx, key_states, value_states)
        return key_states, value_states

    def get_conv_state(self, *args: Any, **kwargs: Any) -> None:
        """There is none: sequences begin at position 0."""

    def update_conv_state(self, conv_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The inputs of a convolution, as they are given."""
        return conv_states

    def get_recurrent_state(self, *args: Any, **kwargs: Any) -> None:
        """There is none either."""

    def update_recurrent_state(self, *args: Any, **kwargs: Any) -> None:
        """What linear attention would go on from; not kept."""
