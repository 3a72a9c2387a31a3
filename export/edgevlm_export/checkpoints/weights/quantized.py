"""Are a checkpoint's weights quantized? Its tensors say so; a config may keep `quantization_config` after a merge."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from edgevlm_export.checkpoints.weights.shards import FLOATS, StoredTensor
from edgevlm_runtime.errors import UnsupportedModel

METHODS = {
    "quantize_config.json": "GPTQ",
    "quant_config.json": "AWQ",
}
"""Files beside the weights of older checkpoints, which have no entry in config.json."""
KEYS = ("quantization_config", "quantization", "compression_config")
"""Entries of config.json: transformers', MLX's and compressed-tensors' first."""
_COMPANION = re.compile(
    r"[.:_](qweight|qzeros|g_idx|scales|absmax|nested_absmax|quant_map|nested_quant_map|quant_state\.\w+|SCB|weight_format"
    r"|weight_scales?|weight_scale_inv|weight_packed|weight_zero_point|W_q|codebooks|qdata)$"
)
"""Names of what a quantized weight is stored with, by the tools that make such checkpoints."""
_WEIGHT = re.compile(r"\.weight$")


def quantized_tensor(tensors: Iterable[StoredTensor]) -> StoredTensor | None:
    """The first tensor that belongs to a quantized weight; None where all weights are plain floats."""
    for tensor in tensors:
        if _COMPANION.search(tensor.name) or (_WEIGHT.search(tensor.name) and tensor.dtype not in FLOATS):
            return tensor
    return None


def check_plain(tensors: Iterable[StoredTensor], method: str | None = None) -> None:
    """Raise `UnsupportedModel` where weights are quantized, by `method` where something says how."""
    tensor = quantized_tensor(tensors)
    if tensor is not None:
        how = f" ({method})" if method else ""
        raise UnsupportedModel(
            f"the checkpoint is quantized already{how}: {tensor.path}: {tensor.name} is {tensor.dtype}: export the one "
            "that it was made from, with --int8 or --int4"
        )


def forget(config: PreTrainedConfig) -> None:
    """Take a `quantization_config` that is not true out of a config and its parts, so that nothing quantizes again."""
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        if getattr(part, "quantization_config", None) is not None:
            del part.quantization_config


def stated_method(folder: Path, raw: dict[str, Any]) -> str | None:
    """How the config, or a file beside it, says that the weights are quantized; None where nothing does."""
    entries = [raw, *(entry for entry in raw.values() if isinstance(entry, dict))]
    for entry in entries:
        for key in KEYS:
            stated = entry.get(key)
            if stated is not None:
                method = stated.get("quant_method") if isinstance(stated, dict) else None
                return str(method or ("MLX" if key == "quantization" else key))
    return next((method for name, method in METHODS.items() if (folder / name).is_file()), None)
