"""InternVL checkpoints, with the file names, config keys and chat template of `OpenGVLab/InternVL3-1B-hf`."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from transformers import InternVLConfig

from tests.support.checkpoints.weights import save, write_json
from tests.support.checkpoints.words import tokenizer

TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "{{ '<IMG_CONTEXT>\n' }}{% elif content['type'] == 'video' %}{{ '<video>\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}{{'<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)
TOKENS = ("<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>")
NAMED = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}

INTERNVL_SHAPES: dict[str, dict[str, Any]] = {
    # InternVL3: Qwen2 with a dynamic rotary scaling; the whole says tied, the files have a head of their own
    "qwen2-published": {
        "text": {
            "model_type": "qwen2",
            "hidden_size": 64,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
            "rope_theta": 1_000_000.0,
        },
        "vision": {"hidden_size": 36, "num_attention_heads": 3, "attention_bias": True},
        "tile": 32,
        "patch": 8,
        "ratio": 0.5,
        "tied": False,
        "images": {"max_patches": 6},
    },
    # Qwen3 as in InternVL3.5, but tied; heads of 40 in groups of 3, tiles of 3 x 3 tokens
    "qwen3-tied": {
        "text": {
            "model_type": "qwen3",
            "hidden_size": 72,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 40,
            "num_hidden_layers": 3,
        },
        "vision": {"hidden_size": 48, "num_attention_heads": 4, "attention_bias": True},
        "tile": 42,
        "patch": 7,
        "ratio": 0.5,
        "tied": True,
        "images": {"max_patches": 4, "min_patches": 2},
    },
    # InternVL2.5 2B: Llama (InternLM2); the largest towers' norms; a hidden state before the last, and four by four
    "llama-large-tower": {
        "text": {"model_type": "llama", "hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 3},
        "vision": {
            "hidden_size": 40,
            "num_attention_heads": 2,
            "norm_type": "rms_norm",
            "use_qk_norm": True,
            "use_mean_pooling": False,
        },
        "tile": 32,
        "patch": 4,
        "ratio": 0.25,
        "tied": False,
        "images": {"max_patches": 12},
        "layer": -2,
    },
    # heads of 24, no grids, a tower without positions
    "heads-of-24": {
        "text": {
            "model_type": "qwen2",
            "hidden_size": 120,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
        },
        "vision": {
            "hidden_size": 32,
            "num_attention_heads": 2,
            "use_absolute_position_embeddings": False,
            "use_mean_pooling": False,
        },
        "tile": 28,
        "patch": 7,
        "ratio": 0.5,
        "tied": False,
        "images": {"max_patches": 1},
    },
}


def internvl(folder: Path, shape: str = "qwen2-published", **save_options: Any) -> Path:
    """An InternVL checkpoint; `save_options` as for `save`."""
    s = INTERNVL_SHAPES[shape]
    words = tokenizer("<IMG_CONTEXT>", TOKENS, NAMED)
    words.chat_template = TEMPLATE
    text = {
        "intermediate_size": 112,
        "num_hidden_layers": 2,
        "max_position_embeddings": 1024,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "vocab_size": len(words),
        "tie_word_embeddings": s["tied"],
        **s["text"],
    }
    vision = {
        "model_type": "internvl_vision",
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "image_size": [s["tile"], s["tile"]],
        "patch_size": [s["patch"], s["patch"]],
        **s["vision"],
    }
    tokens = int(s["tile"] // s["patch"] * s["ratio"]) ** 2
    whole = {
        "downsample_ratio": s["ratio"],
        "image_seq_length": tokens,
        "image_token_id": words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        "projector_hidden_act": "gelu",
        "text_config": text,
        "vision_config": vision,
        "vision_feature_layer": s.get("layer", -1),
        "vision_feature_select_strategy": "default",
    }
    save(folder, InternVLConfig(**copy.deepcopy(whole), tie_word_embeddings=s["tied"]), **save_options)
    architecture = {"architectures": ["InternVLForConditionalGeneration"], "model_type": "internvl"}
    write_json(folder / "config.json", {**architecture, **whole})
    words.save_pretrained(folder)
    write_json(
        folder / "preprocessor_config.json",
        {
            "crop_to_patches": False,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.485, 0.456, 0.406],
            "image_processor_type": "GotOcr2ImageProcessorFast",
            "image_std": [0.229, 0.224, 0.225],
            "max_patches": 12,
            "min_patches": 1,
            "processor_class": "InternVLProcessor",
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            "size": {"height": s["tile"], "width": s["tile"]},
            **s["images"],
        },
    )
    write_json(folder / "processor_config.json", {"image_seq_length": tokens, "processor_class": "InternVLProcessor"})
    return folder
