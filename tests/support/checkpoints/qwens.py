"""Qwen2.5-VL checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import Qwen2_5_VLConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tests.support.checkpoints.decoders import HEADS
from tests.support.checkpoints.weights import save, write_json
from tests.support.checkpoints.words import tokenizer

QWEN_SHAPES: dict[str, dict[str, Any]] = {
    "window-4": {"patch": 14, "window": 112, "depth": 3, "full": [1], "heads": 2, "width": 32, "sections": [2, 3, 3]},
    "window-3": {"patch": 10, "window": 60, "depth": 2, "full": [1], "heads": 3, "width": 72, "sections": [4, 2, 2]},
}


def qwen2_5_vl(folder: Path, shape: str = "window-4", **save_options: Any) -> Path:
    """A Qwen2.5-VL checkpoint; `save_options` as for `save`."""
    s = QWEN_SHAPES[shape]
    words = tokenizer("<|image_pad|>")
    ids = words.convert_tokens_to_ids
    text = {
        **HEADS,
        "model_type": "qwen2_5_vl_text",
        "num_key_value_heads": 2,
        "vocab_size": len(words),
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": s["sections"]},
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    vision = {
        "model_type": "qwen2_5_vl_vision",
        "depth": s["depth"],
        "hidden_size": s["width"],
        "intermediate_size": 56,
        "num_heads": s["heads"],
        "patch_size": s["patch"],
        "spatial_merge_size": 2,
        "window_size": s["window"],
        "fullatt_block_indexes": s["full"],
        "out_hidden_size": 64,
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids("<|image_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    save(folder, config, **save_options)
    words.chat_template = words.chat_template.replace("<|image_pad|>", "<|vision_start|><|image_pad|><|vision_end|>")
    words.save_pretrained(folder)
    factor = 2 * s["patch"]
    Qwen2VLImageProcessorPil(
        patch_size=s["patch"], size={"shortest_edge": 4 * factor**2, "longest_edge": 40 * factor**2}
    ).save_pretrained(folder)
    write_json(folder / "processor_config.json", {"processor_class": "Qwen2_5_VLProcessor"})
    return folder
