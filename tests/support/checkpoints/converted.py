"""Checkpoints in a layout that the model does not have, which transformers converts as it loads.

No family that is exported has such a mapping in transformers yet: these are registered for a test, as another library
would register its own. transformers saves a model in the layout that is registered, and loads it from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest
from transformers import conversion_mapping
from transformers.core_model_loading import (
    Chunk,
    Concatenate,
    Interleave,
    MergeModulelist,
    PermuteForRope,
    Split,
    Transpose,
    WeightConverter,
    WeightTransform,
)

QKV = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
PACKED = "self_attn.packed"

Rules = Mapping[str, Sequence[WeightTransform]]
"""Of each `model_type` or class."""


def _of(names: list[str], kind: str) -> list[str]:
    return [f"{name}.{kind}" for name in names]


def packed_by_sizes() -> Rules:
    """q, k and v packed though they are of different sizes, biases too."""
    return {
        "qwen2": [WeightConverter(f"{PACKED}.{kind}", _of(QKV, kind), [Split(dim=0)]) for kind in ("weight", "bias")]
    }


def packed_for_complex_rope() -> Rules:
    """q, k and v packed, and the rows of q and k in pairs, as the first Llama had them."""
    rotate = PermuteForRope(subconfig_key="text_config", permute_layer_names=QKV[:2])
    return {"llama": [WeightConverter(f"{PACKED}.weight", _of(QKV, "weight"), [Chunk(dim=0), rotate])]}


def apart() -> Rules:
    """What a model has as one product: q, k and v; gate and up."""
    return {
        "phi3": [
            WeightConverter(_of(QKV, "weight"), "self_attn.qkv_proj.weight", [Concatenate(dim=0)]),
            WeightConverter(
                ["mlp.gate_proj.weight", "mlp.up_proj.weight"], "mlp.gate_up_proj.weight", [Concatenate(dim=0)]
            ),
        ]
    }


def tower() -> Rules:
    """A tower whose kernels are transposed or interleaved, and whose patch embedding is a list of kernels."""
    return {
        "CLIPVisionModel": [
            WeightConverter("mlp.fc1.kernel", "mlp.fc1.weight", [Transpose(0, 1)]),
            WeightConverter("mlp.fc2.weight", "mlp.fc2.weight", [Interleave(dim=0)]),
            WeightConverter("patch_embedding.*.weight", "patch_embedding.weight", [MergeModulelist(dim=0)]),
        ]
    }


@contextmanager
def registered(*rules: Rules) -> Iterator[None]:
    """transformers knows the rules meanwhile, besides those that it has for the same models."""
    conversion_mapping.get_checkpoint_conversion_mapping("legacy")  # makes the table
    with pytest.MonkeyPatch.context() as patch:
        table = conversion_mapping._checkpoint_conversion_mapping_cache
        patch.setattr(conversion_mapping, "_checkpoint_conversion_mapping_cache", dict(table))
        patch.setattr(conversion_mapping, "USER_REGISTERED_MAPPINGS", set())
        for one in rules:
            for model, added in one.items():
                known = conversion_mapping.get_checkpoint_conversion_mapping(model) or []
                conversion_mapping.register_checkpoint_conversion_mapping(model, [*known, *added], overwrite=True)
        yield
