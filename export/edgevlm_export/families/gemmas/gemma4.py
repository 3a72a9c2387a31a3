"""Gemma 4 (Google DeepMind 2026): layers that share keys and values, embeddings of their own for every layer.

The last layers of the small models read the keys and values of earlier ones, and each layer is told of every token by a
second table (per-layer embeddings), whose rows are columns of the decoder's input; tokens that stand for images are
looked up as the padding token. Sliding and global layers have heads of different sizes and rotary tables of their own.
In the larger models an image's tokens see each other, in sliding layers alone. The tower's patches have positions in
two directions, and are pooled after its last layer: the runtime hands those that are pooled over side by side
(`edgevlm_runtime.images.kinds.pooled`).

Pictures and text alone: a checkpoint's audio tower is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.gemma4.modeling_gemma4 import Gemma4ClippableLinear, create_masks_for_vision_model

from edgevlm_export.families.base import Family, TokenTable
from edgevlm_export.families.blocks import masks
from edgevlm_export.families.normalization import Normalization, Normalize
from edgevlm_export.graphs.source import GraphSource, Port, Range
from edgevlm_runtime.errors import UnsupportedModel
from edgevlm_runtime.images.kinds import pooled

VIDEO_TOKEN = "<|video|>"
"""What transformers' processor adds to the tokenizer where it is not there."""
PATTERNS = {None: "causal", "vision": "images_in_windows"}
"""`use_bidirectional_attention` to `Family.attention`."""


class Gemma4(Family):
    """`Gemma4ForConditionalGeneration`."""

    model_type = "gemma4"
    projector_module = "model.embed_vision.embedding_pre_projection_norm"

    def __init__(
        self, model: PreTrainedModel, normalization: Normalization, image_options: dict[str, Any], context: int
    ):
        super().__init__(model, normalization, image_options, context)
        self._check()
        self.attention = PATTERNS[self.text_config.use_bidirectional_attention]

    def _check(self) -> None:
        """Raise `UnsupportedModel` for members of the line whose graphs would not be theirs."""
        text, vision = self.text_config, self.config.vision_config
        reasons = {
            "a mixture of experts (enable_moe_block)": text.enable_moe_block,
            f"use_bidirectional_attention: {text.use_bidirectional_attention}": (
                text.use_bidirectional_attention not in PATTERNS
            ),
            "no vision tower": vision is None,
            "a vision tower with fewer heads of keys than of queries": (
                vision is not None and vision.num_key_value_heads != vision.num_attention_heads
            ),
        }
        for what, found in reasons.items():
            if found:
                raise UnsupportedModel(f"Gemma 4 checkpoint not supported: {what}")

    @classmethod
    def prepare_tokenizer(cls, tokenizer: Any) -> Any:
        tokenizer.add_special_tokens({"additional_special_tokens": [VIDEO_TOKEN]})
        return tokenizer

    @property
    def logit_cap(self) -> float | None:
        cap = self.text_config.final_logit_softcapping
        return None if cap is None else float(cap)

    @property
    def token_tables(self) -> tuple[TokenTable, ...]:
        text = self.text_config
        if not text.hidden_size_per_layer_input:
            return ()
        width = int(text.hidden_size_per_layer_input)
        return (
            TokenTable(
                name="per_layer_inputs",
                module="model.language_model.embed_tokens_per_layer",
                shape=(int(text.vocab_size_per_layer_input), int(text.num_hidden_layers) * width),
                scale=width**0.5,
            ),
        )

    @property
    def stand_ins(self) -> dict[int, int]:
        config = self.config
        stand_for_rows = (config.image_token_id, config.video_token_id, config.audio_token_id)
        return {int(token): int(self.text_config.pad_token_id) for token in stand_for_rows if token is not None}

    def column_arguments(self, columns: Mapping[str, Tensor]) -> dict[str, Any]:
        return {name: rows.unflatten(-1, (self.text_config.num_hidden_layers, -1)) for name, rows in columns.items()}

    def block_masks(self, embeddings: Tensor, blocks: Tensor) -> Any:
        return masks(create_masks_for_vision_model, self.text_config, embeddings, blocks)

    @property
    def patches_range(self) -> Range:
        """From one image token to as many as an image may have."""
        options = pooled.Options(**self.image_options)
        merged, most = options.pool_size**2, max(1, min(options.max_tokens, self.context))
        return merged, -(-most // 2) * merged, most * merged

    def vision_encoder(self) -> GraphSource:
        vision = self.config.vision_config
        return GraphSource(
            module=VisionEncoder(self.model, self.normalization),
            inputs=(
                Port("patches", torch.uint8, ("patches", 3 * vision.patch_size**2)),
                Port("position_ids", torch.int64, ("patches", 2)),
            ),
            outputs=("image_features",),
            sizes={"patches": 2 * self.patches_range[0]},
            ranges={"patches": self.patches_range},
            forwards=((Gemma4ClippableLinear, partial(clipped_linear, clip_ranges(self.model.model.vision_tower))),),
        )

    def projector(self) -> GraphSource:
        pool = int(self.config.vision_config.pooling_kernel_size) ** 2
        return GraphSource(
            module=Projector(self.model),
            inputs=(Port("image_features", torch.float32, ("tokens", self.config.vision_config.hidden_size)),),
            outputs=("image_embeddings",),
            sizes={"tokens": 3},
            ranges={"tokens": tuple(size // pool for size in self.patches_range)},  # type: ignore[dict-item]
        )


Ranges = Mapping[nn.Module, tuple[tuple[float, float], tuple[float, float]]]
"""Least and most of what a clipped layer takes, and of what it gives."""


def clip_ranges(tower: nn.Module) -> Ranges:
    """Of every layer that is clipped: buffers, which the checkpoint has filled."""

    def pair(layer: nn.Module, part: str) -> tuple[float, float]:
        return float(layer.get_buffer(f"{part}_min")), float(layer.get_buffer(f"{part}_max"))

    layers = [module for module in tower.modules() if isinstance(module, Gemma4ClippableLinear)]
    return {layer: (pair(layer, "input"), pair(layer, "output")) for layer in layers if layer.use_clipped_linears}


def clipped_linear(ranges: Ranges, layer: Any, hidden: Tensor) -> Tensor:
    """`Gemma4ClippableLinear.forward` with numbers for ranges, which make one operator each."""
    before, after = ranges.get(layer, (None, None))
    made: Tensor = layer.linear(hidden if before is None else hidden.clamp(*before))
    return made if after is None else made.clamp(*after)


class VisionEncoder(nn.Module):
    """patches uint8 [P, S*S*3], position_ids int64 [P, 2] (column and row) to float32 [P / pool**2, width]."""

    def __init__(self, model: PreTrainedModel, normalization: Normalization):
        super().__init__()
        self.model = model
        self.normalize = Normalize(normalization, axes=0)

    def forward(self, patches: Tensor, position_ids: Tensor) -> Tensor:
        tower = self.model.model.vision_tower
        hidden = self.embed(tower.patch_embedder, patches, position_ids)[None]
        tables = tower.encoder.rotary_emb(hidden, position_ids[None])
        for layer in tower.encoder.layers:
            hidden = layer(hidden, position_embeddings=tables, attention_mask=None, position_ids=position_ids[None])
        merged = tower.config.pooling_kernel_size**2
        torch._check(hidden.shape[1] % merged == 0)
        features: Tensor = hidden[0].unflatten(0, (-1, merged)).mean(1) * tower.pooler.root_hidden_size
        return (features - tower.std_bias) * tower.std_scale if tower.config.standardize else features

    def embed(self, embedder: Any, patches: Tensor, position_ids: Tensor) -> Tensor:
        """`Gemma4VisionPatchEmbedder` without padding, [P, width]."""
        pixels = self.normalize(patches.unflatten(-1, (-1, 3))).flatten(-2)
        columns, rows = embedder.position_embedding_table
        places = columns[position_ids[:, 0]] + rows[position_ids[:, 1]]
        embedded: Tensor = embedder.input_proj(2 * (pixels - 0.5)) + places
        return embedded


class Projector(nn.Module):
    """A norm without a scale, and a linear layer: [tokens, width] to [tokens, hidden]."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, image_features: Tensor) -> Tensor:
        embeddings: Tensor = self.model.model.embed_vision(image_features)
        return embeddings


FAMILY = Gemma4
