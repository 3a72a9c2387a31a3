"""LFM2-VL checkpoints, with the file names, config keys and chat template of `LiquidAI/LFM2-VL-450M`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import Lfm2VlConfig

from tests.support.checkpoints.weights import save, write_json
from tests.support.checkpoints.words import tokenizer

TEMPLATE = (
    "{{bos_token}}{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<image>' }}{% elif content['type'] == 'text' %}{{ content['text'] }}"
    "{% endif %}{% endfor %}{% endif %}{{'<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)
TURNS = ("<|im_start|>", "<|im_end|>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>")
PLACES = tuple(f"<|img_row_{row}_col_{column}|>" for row in range(1, 5) for column in range(1, 5))
NAMED = {"image_start_token": "<|image_start|>", "image_end_token": "<|image_end|>", "image_thumbnail": TURNS[-1]}

LFM2_SHAPES: dict[str, dict[str, Any]] = {
    # convolutions first and between; names of config keys and weights as first published
    "published": {
        "layers": ["conv", "full_attention", "conv", "full_attention"],
        "heads": 4,
        "kv": 2,
        "hidden": 64,
        "kernel": 3,
        "bias": False,
        "tied": True,
        "published": True,
        "side": 4,
        "images": {"tile_size": 48, "max_tiles": 4, "min_image_tokens": 2, "max_image_tokens": 9},
    },
    # heads of 24 in groups of 3, a longer kernel with biases, ending in a convolution; a table of 5 x 5 positions
    "heads-of-24": {
        "layers": ["full_attention", "conv", "conv"],
        "heads": 3,
        "kv": 1,
        "hidden": 72,
        "kernel": 4,
        "bias": True,
        "tied": False,
        "published": False,
        "side": 5,
        "images": {"do_image_splitting": False, "min_image_tokens": 3, "max_image_tokens": 20},
    },
    # a kernel of two, no thumbnail, tiles shorter than an image that is not cut
    "no-thumbnail": {
        "layers": ["full_attention", "conv", "full_attention", "conv"],
        "heads": 5,
        "kv": 1,
        "hidden": 80,
        "kernel": 2,
        "bias": False,
        "tied": False,
        "published": False,
        "side": 3,
        "images": {
            "tile_size": 32,
            "max_tiles": 6,
            "min_image_tokens": 1,
            "max_image_tokens": 8,
            "use_thumbnail": False,
        },
    },
    "full-heads": {
        "layers": ["conv", "full_attention", "conv", "full_attention"],
        "heads": 2,
        "kv": 2,
        "hidden": 96,
        "kernel": 3,
        "bias": False,
        "tied": True,
        "published": True,
        "side": 8,
        "images": {"tile_size": 48, "max_tiles": 3, "min_image_tokens": 2, "max_image_tokens": 8},
    },
}
PATCH = 8


def lfm2_vl(folder: Path, shape: str = "published", **save_options: Any) -> Path:
    """An LFM2-VL checkpoint; `save_options` as for `save`."""
    s = LFM2_SHAPES[shape]
    words = tokenizer("<image>", (*TURNS, *PLACES), NAMED)
    words.chat_template = TEMPLATE
    text = {
        "model_type": "lfm2",
        "architectures": ["Lfm2ForCausalLM"],
        "block_auto_adjust_ff_dim": True,
        "block_ff_dim": 144,
        "block_ffn_dim_multiplier": 1.0,
        "block_multiple_of": 16,
        "conv_L_cache": s["kernel"],
        "conv_bias": s["bias"],
        "hidden_size": s["hidden"],
        "layer_types": s["layers"],
        "num_hidden_layers": len(s["layers"]),
        "num_attention_heads": s["heads"],
        "num_key_value_heads": s["kv"],
        "max_position_embeddings": 1024,
        "rope_theta": 1_000_000.0,
        "vocab_size": len(words),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_embedding": s["tied"],
    }
    vision = {
        "model_type": "siglip2_vision_model",
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_channels": 3,
        "num_patches": s["side"] ** 2,
        "patch_size": PATCH,
        "vision_use_head": False,
    }
    whole = {
        "text_config": text,
        "vision_config": vision,
        "downsample_factor": 2,
        "image_token_id": words.convert_tokens_to_ids("<image>"),
        "projector_bias": True,
        "projector_hidden_act": "gelu",
        "projector_hidden_size": 56,
        "projector_use_layernorm": not s["tied"],
        "tie_word_embeddings": s["tied"],
        "eos_token_id": 2,
    }
    images = {"encoder_patch_size": PATCH, "downsample_factor": 2, **s["images"]}
    save(folder, Lfm2VlConfig(**whole), save_original_format=s["published"], **save_options)
    if s["published"]:  # the config in the words of its time
        architecture = {"architectures": ["Lfm2VlForConditionalGeneration"], "model_type": "lfm2_vl"}
        write_json(folder / "config.json", {**architecture, **whole, **images})
    words.save_pretrained(folder)
    kind = {"image_processor_type": "Lfm2VlImageProcessorFast", "processor_class": "Lfm2VlProcessor"}
    if s["published"]:
        write_json(folder / "preprocessor_config.json", {**kind, **images, "resample": 2})
    write_json(
        folder / "processor_config.json",
        {"processor_class": "Lfm2VlProcessor", **({} if s["published"] else {"image_processor": {**kind, **images}})},
    )
    return folder
