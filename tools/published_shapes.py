"""Dimensions of the checkpoints behind the aliases, as their config.json files say; what does not change a weight's
shape is left out. Written down by hand: no test reaches the hub, so each stands beside the number of parameters (in
billions) that its publisher names, to which `tests/export/checkpoints/test_aliases.py` holds it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Dimensions = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Published:
    """One checkpoint; `parameters` in billions."""

    model_type: str
    text: Dimensions
    vision: Dimensions
    parameters: float
    more: Dimensions = field(default_factory=dict)
    tolerance: float = 0.015
    """How far off the count may be; more where a name is all that the publisher says."""


def _text(model_type: str, size: tuple[int, int, int], heads: tuple[int, int], vocab: int, **more: Any) -> Dimensions:
    """`size`: hidden, intermediate, layers; `heads`: of queries, of keys and values."""
    return {
        "model_type": model_type,
        **dict(zip(("hidden_size", "intermediate_size", "num_hidden_layers"), size, strict=True)),
        **dict(zip(("num_attention_heads", "num_key_value_heads"), heads, strict=True)),
        "vocab_size": vocab,
        "tie_word_embeddings": False,
        **more,
    }


def _vision(model_type: str, size: tuple[int, int, int], heads: int, side: int, patch: int, **more: Any) -> Dimensions:
    """`size`: hidden, intermediate, layers."""
    return {
        "model_type": model_type,
        **dict(zip(("hidden_size", "intermediate_size", "num_hidden_layers"), size, strict=True)),
        "num_attention_heads": heads,
        "image_size": side,
        "patch_size": patch,
        "vision_use_head": False,
        **more,
    }


def _qwen2_vl(hidden: int) -> Dimensions:
    return {"embed_dim": 1280, "depth": 32, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14, "hidden_size": hidden}


def _qwen2_5_vl(hidden: int) -> Dimensions:
    return {"hidden_size": 1280, "intermediate_size": 3420, "depth": 32, "num_heads": 16, "out_hidden_size": hidden}


def _qwen3_vl(hidden: int, width: int = 1024, mlp: int = 4096, depth: int = 24) -> Dimensions:
    taps = [depth // 4 - 1, depth // 2 - 1, 3 * depth // 4 - 1] if depth == 24 else [8, 16, 24]
    return {
        "hidden_size": width,
        "intermediate_size": mlp,
        "depth": depth,
        "num_heads": 16,
        "patch_size": 16,
        "num_position_embeddings": 2304,
        "out_hidden_size": hidden,
        "deepstack_visual_indexes": taps,
    }


def _gemma4(size: tuple[int, int, int], kv: int, shared: int, period: int) -> Dimensions:
    """`shared`: layers that read the keys and values of others; every `period`-th layer sees everything."""
    kinds = ["full_attention" if (layer + 1) % period == 0 else "sliding_attention" for layer in range(size[2])]
    more = {"num_kv_shared_layers": shared, "layer_types": kinds, "use_double_wide_mlp": size[0] == 1536}
    return _text("gemma4_text", size, (8, kv), 262144, tie_word_embeddings=True, **more)


_GEMMA4_TOWER = {
    "model_type": "gemma4_vision",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 16,
    "num_attention_heads": 12,
}


def _qwen3_5(
    parameters: float, size: tuple[int, int, int], heads: tuple[int, int], tied: bool, tower: tuple[int, int, int, int]
) -> Published:
    """`tower`: hidden, intermediate, layers, heads."""
    more = {"head_dim": 256, "linear_num_key_heads": 16, "linear_num_value_heads": 2 * heads[0]}
    names = ("hidden_size", "intermediate_size", "depth", "num_heads")
    vision = {"model_type": "qwen3_5_vision", **dict(zip(names, tower, strict=True)), "out_hidden_size": size[0]}
    text = _text("qwen3_5_text", size, heads, 248320, tie_word_embeddings=tied, **more)
    return Published("qwen3_5", text, vision, parameters, tolerance=0.15)


_FASTVIT_HD = {
    "model_type": "timm_wrapper",
    "architecture": "fastvit_mci3",
    "do_pooling": True,
    "global_pool": "avg",
    "hidden_size": 3072,
    "initializer_range": 0.02,
    "model_args": {"inference_mode": True},
}


def _fastvlm(
    parameters: float, size: tuple[int, int, int], heads: tuple[int, int], vocab: int, tied: bool
) -> Published:
    """`parameters`: billions of Qwen2 alone, as the checkpoint's name counts; the tower has 0.125 by the paper."""
    text = _text("qwen2", size, heads, vocab, tie_word_embeddings=tied)
    return Published("fast_vlm", text, _FASTVIT_HD, parameters + 0.125, {"image_seq_length": 256})


_CLIP = _vision("clip_vision_model", (1024, 4096, 24), 16, 336, 14)
_SO400M = _vision("siglip_vision_model", (1152, 4304, 27), 16, 384, 14)
_SMOL = _vision("smolvlm_vision", (768, 3072, 12), 12, 512, 16)
_SMOL_LARGE = _vision("smolvlm_vision", (1152, 4304, 27), 16, 384, 14)
_IDEFICS = {**_SMOL, "model_type": "idefics3_vision"}
_IDEFICS_LARGE = {**_SMOL_LARGE, "model_type": "idefics3_vision"}
_SMOLLM = {
    "256M": _text("llama", (576, 1536, 30), (9, 3), 49280),
    "500M": _text("llama", (960, 2560, 32), (15, 5), 49280),
    "2.2B": _text("llama", (2048, 8192, 24), (32, 32), 49280),
}
_QWEN2_VL = {
    "2B": _text("qwen2_vl_text", (1536, 8960, 28), (12, 2), 151936, tie_word_embeddings=True),
    "7B": _text("qwen2_vl_text", (3584, 18944, 28), (28, 4), 152064),
}
_INTERN_VIT = _vision("internvl_vision", (1024, 4096, 24), 16, 448, 14, attention_bias=True)
_PIXTRAL = _vision("pixtral", (1024, 4096, 24), 16, 1024, 16)
_GEMMA = {"image_size": 224, "projection_dim": 2048}
_LFM2_LAYERS = ["full_attention" if layer in (2, 5, 8, 10, 12, 14) else "conv" for layer in range(16)]
_LFM2 = {"layer_types": _LFM2_LAYERS, "block_auto_adjust_ff_dim": True, "block_multiple_of": 256, "conv_L_cache": 3}

PUBLISHED: dict[str, Published] = {
    "llava": Published("llava", _text("llama", (4096, 11008, 32), (32, 32), 32064), _CLIP, 7.06),
    "llava-13b": Published("llava", _text("llama", (5120, 13824, 40), (40, 40), 32064), _CLIP, 13.4),
    "llava-llama3": Published("llava", _text("llama", (4096, 14336, 32), (32, 8), 128320), _CLIP, 8.36),
    "llava-phi3": Published("llava", _text("phi3", (3072, 8192, 32), (32, 32), 32064), _CLIP, 4.14),
    "llava-interleave": Published(
        "llava",
        _text("qwen2", (1024, 2816, 24), (16, 16), 152000, tie_word_embeddings=True),
        {**_SO400M, "num_hidden_layers": 26},
        0.86,
    ),
    "llava-1.6": Published("llava_next", _text("mistral", (4096, 14336, 32), (32, 8), 32064), _CLIP, 7.57),
    "llava-1.6-vicuna": Published("llava_next", _text("llama", (4096, 11008, 32), (32, 32), 32064), _CLIP, 7.06),
    "llava-onevision": Published(
        "llava_onevision",
        _text("qwen2", (896, 4864, 24), (14, 2), 152000, tie_word_embeddings=True),
        {**_SO400M, "num_hidden_layers": 26},
        0.894,
    ),
    "vip-llava": Published("vipllava", _text("llama", (4096, 11008, 32), (32, 32), 32064), _CLIP, 7.08),
    "fastvlm": _fastvlm(0.494, (896, 4864, 24), (14, 2), 152000, True),
    "fastvlm-1.5b": _fastvlm(1.54, (1536, 8960, 28), (12, 2), 152000, True),
    "fastvlm-7b": _fastvlm(7.62, (3584, 18944, 28), (28, 4), 152128, False),
    "smolvlm": Published("smolvlm", _SMOLLM["2.2B"], _SMOL_LARGE, 2.25, {"scale_factor": 3}),
    "smolvlm-256m": Published("smolvlm", _SMOLLM["256M"], _SMOL, 0.256, {"scale_factor": 4}),
    "smolvlm-500m": Published("smolvlm", _SMOLLM["500M"], _SMOL, 0.507, {"scale_factor": 4}),
    "smolvlm1": Published("idefics3", _SMOLLM["2.2B"], _IDEFICS_LARGE, 2.25, {"scale_factor": 3}),
    "smolvlm1-256m": Published("idefics3", _SMOLLM["256M"], _IDEFICS, 0.256, {"scale_factor": 4}),
    "smolvlm1-500m": Published("idefics3", _SMOLLM["500M"], _IDEFICS, 0.507, {"scale_factor": 4}),
    "qwen2-vl": Published("qwen2_vl", _QWEN2_VL["2B"], _qwen2_vl(1536), 2.21),
    "qwen2-vl-7b": Published("qwen2_vl", _QWEN2_VL["7B"], _qwen2_vl(3584), 8.29),
    "qwen2.5-vl": Published(
        "qwen2_5_vl",
        _text("qwen2_5_vl_text", (2048, 11008, 36), (16, 2), 151936, tie_word_embeddings=True),
        _qwen2_5_vl(2048),
        3.75,
    ),
    "qwen2.5-vl-7b": Published(
        "qwen2_5_vl", _text("qwen2_5_vl_text", (3584, 18944, 28), (28, 4), 152064), _qwen2_5_vl(3584), 8.29
    ),
    "qwen3-vl": Published(
        "qwen3_vl",
        _text("qwen3_vl_text", (2048, 6144, 28), (16, 8), 151936, tie_word_embeddings=True, head_dim=128),
        _qwen3_vl(2048),
        2.13,
    ),
    "qwen3-vl-4b": Published(
        "qwen3_vl",
        _text("qwen3_vl_text", (2560, 9728, 36), (32, 8), 151936, tie_word_embeddings=True, head_dim=128),
        _qwen3_vl(2560),
        4.44,
    ),
    "qwen3-vl-8b": Published(
        "qwen3_vl",
        _text("qwen3_vl_text", (4096, 12288, 36), (32, 8), 151936, head_dim=128),
        _qwen3_vl(4096, 1152, 4304, 27),
        8.77,
    ),
    "qwen3.5": _qwen3_5(2, (2048, 6144, 24), (8, 2), True, (1024, 4096, 24, 16)),
    "qwen3.5-0.8b": _qwen3_5(0.8, (1024, 3584, 24), (8, 2), True, (768, 3072, 12, 12)),
    "qwen3.5-4b": _qwen3_5(4, (2560, 9216, 32), (16, 4), True, (1024, 4096, 24, 16)),
    "qwen3.5-9b": _qwen3_5(9, (4096, 12288, 32), (16, 4), False, (1152, 4304, 27, 16)),
    "paddleocr-vl": Published(
        "paddleocr_vl",
        _text("paddleocr_vl_text", (1024, 3072, 18), (16, 2), 103424, head_dim=128),
        _vision("paddleocr_vl_vision", (1152, 4304, 27), 16, 384, 14, spatial_merge_size=2),
        0.9,
    ),
    "gemma3": Published(
        "gemma3",
        _text("gemma3_text", (2560, 10240, 34), (8, 4), 262208, tie_word_embeddings=True, head_dim=256),
        {**_SO400M, "image_size": 896},
        4.3,
    ),
    "gemma3-12b": Published(
        "gemma3",
        _text("gemma3_text", (3840, 15360, 48), (16, 8), 262208, tie_word_embeddings=True, head_dim=256),
        {**_SO400M, "image_size": 896},
        12.2,
    ),
    "gemma4": Published("gemma4", _gemma4((1536, 6144, 35), 1, 20, 5), _GEMMA4_TOWER, 4.8),
    "gemma4-e4b": Published("gemma4", _gemma4((2560, 10240, 42), 2, 18, 6), _GEMMA4_TOWER, 7.6),
    "paligemma": Published(
        "paligemma",
        _text("gemma", (2048, 16384, 18), (8, 1), 257216, tie_word_embeddings=True, head_dim=256),
        {**_SO400M, **_GEMMA},
        2.92,
        {"projection_dim": 2048},
    ),
    "paligemma2": Published(
        "paligemma",
        _text("gemma2", (2304, 9216, 26), (8, 4), 257216, tie_word_embeddings=True, head_dim=256),
        {**_SO400M, **_GEMMA, "projection_dim": 2304},
        3.03,
        {"projection_dim": 2304},
    ),
    "paligemma2-448": Published(
        "paligemma",
        _text("gemma2", (2304, 9216, 26), (8, 4), 257216, tie_word_embeddings=True, head_dim=256),
        {**_SO400M, "image_size": 448, "projection_dim": 2304},
        3.03,
        {"projection_dim": 2304},
    ),
    "internvl3": Published("internvl", _text("qwen2", (896, 4864, 24), (14, 2), 151674), _INTERN_VIT, 0.938),
    "internvl3-2b": Published("internvl", _text("qwen2", (1536, 8960, 28), (12, 2), 151674), _INTERN_VIT, 2.09),
    "internvl3-8b": Published("internvl", _text("qwen2", (3584, 18944, 28), (28, 4), 151674), _INTERN_VIT, 7.94),
    "internvl3.5": Published(
        "internvl", _text("qwen3", (1024, 3072, 28), (16, 8), 151936, head_dim=128), _INTERN_VIT, 1.06
    ),
    "internvl3.5-4b": Published(
        "internvl", _text("qwen3", (2560, 9728, 36), (32, 8), 151936, head_dim=128), _INTERN_VIT, 4.73
    ),
    "internvl3.5-8b": Published(
        "internvl", _text("qwen3", (4096, 12288, 36), (32, 8), 151936, head_dim=128), _INTERN_VIT, 8.53
    ),
    "lfm2-vl": Published(
        "lfm2_vl",
        _text("lfm2", (1024, 6656, 16), (16, 8), 65536, tie_word_embeddings=True, block_ff_dim=6656, **_LFM2),
        _vision("siglip2_vision_model", (768, 3072, 12), 12, 256, 16, num_patches=256),
        0.451,
        {"projector_hidden_size": 2560, "downsample_factor": 2},
    ),
    "lfm2-vl-1.6b": Published(
        "lfm2_vl",
        _text("lfm2", (2048, 12288, 16), (32, 8), 65536, tie_word_embeddings=True, block_ff_dim=12288, **_LFM2),
        _vision("siglip2_vision_model", (1152, 4304, 27), 16, 256, 16, num_patches=256),
        1.58,
        {"projector_hidden_size": 2560, "downsample_factor": 2},
    ),
    "pixtral": Published("llava", _text("mistral", (5120, 14336, 40), (32, 8), 131072, head_dim=128), _PIXTRAL, 12.7),
    "mistral-small": Published(
        "mistral3",
        _text("mistral", (5120, 32768, 40), (32, 8), 131072, head_dim=128),
        {**_PIXTRAL, "image_size": 1540, "patch_size": 14},
        24.0,
        {"spatial_merge_size": 2},
    ),
    "ministral3": Published(
        "mistral3",
        _text("ministral3", (3072, 9216, 26), (32, 8), 131072, head_dim=128, tie_word_embeddings=True),
        {**_PIXTRAL, "image_size": 1540, "patch_size": 14},
        3.85,
        {"spatial_merge_size": 2},
    ),
}
"""By alias; the one that ships with edgevlm has its config beside it."""
