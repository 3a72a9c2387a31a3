"""PaddleOCR-VL checkpoints, with the file names, config keys and weights' names of `PaddlePaddle/PaddleOCR-VL`."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from transformers import PaddleOCRVLConfig

from tests.support.checkpoints.weights import save, write_json
from tests.support.checkpoints.words import tokenizer

TOKENS = ("<|begin_of_sentence|>", "<|IMAGE_START|>", "<|IMAGE_END|>", "<|IMAGE_PLACEHOLDER|>")
TEMPLATE = (
    "{{- '<|begin_of_sentence|>' -}}{%- for message in messages -%}{%- if message['role'] == 'user' -%}{{- 'User: ' -}}"
    "{%- for content in message['content'] -%}{%- if content['type'] == 'image' -%}"
    "{{ '<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>' }}{%- endif -%}{%- endfor -%}"
    "{%- for content in message['content'] -%}{%- if content['type'] == 'text' -%}{{ content['text'] }}{%- endif -%}"
    "{%- endfor -%}{{ '\n' }}{%- elif message['role'] == 'assistant' -%}{{- 'Assistant: ' -}}"
    "{%- for content in message['content'] -%}{%- if content['type'] == 'text' -%}{{ content['text'] }}{%- endif -%}"
    "{%- endfor -%}{{ '</s>' }}{%- elif message['role'] == 'system' -%}{%- for content in message['content'] -%}"
    "{%- if content['type'] == 'text' -%}{{ content['text'] + '\n' }}{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- 'Assistant: ' -}}{%- endif -%}"
)

PADDLEOCR_VL_SHAPES: dict[str, dict[str, Any]] = {
    # config and weights in the words of their time
    "published": {
        "text": {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 32},
        "vision": {"hidden_size": 48, "num_attention_heads": 3, "image_size": 84, "patch_size": 14},
        "sections": [4, 6, 6],
        "bias": False,
        "tied": False,
        "published": True,
    },
    # heads of 24, biases, three by three patches merged, a grid larger than the image
    "heads-of-24": {
        "text": {"hidden_size": 72, "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 24},
        "vision": {
            "hidden_size": 72,
            "num_attention_heads": 2,
            "image_size": 96,
            "patch_size": 8,
            "spatial_merge_size": 3,
        },
        "sections": [4, 4, 4],
        "bias": True,
        "tied": True,
        "published": False,
    },
}


def paddleocr_vl(folder: Path, shape: str = "published", **save_options: Any) -> Path:
    """A PaddleOCR-VL checkpoint; `save_options` as for `save`."""
    s = PADDLEOCR_VL_SHAPES[shape]
    words = tokenizer("<|IMAGE_PLACEHOLDER|>", TOKENS)
    words.chat_template = TEMPLATE
    ids = words.convert_tokens_to_ids
    tokens = {
        "image_token_id": ids("<|IMAGE_PLACEHOLDER|>"),
        "video_token_id": len(words) + 1,
        "vision_start_token_id": ids("<|IMAGE_START|>"),
        "vision_end_token_id": ids("<|IMAGE_END|>"),
        "tie_word_embeddings": s["tied"],
    }
    text = {
        **s["text"],
        "eos_token_id": 2,
        "hidden_act": "silu",
        "intermediate_size": 112,
        "max_position_embeddings": 1024,
        "num_hidden_layers": 2,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {"mrope_section": s["sections"], "rope_type": "default", "type": "default"},
        "rope_theta": 500000,
        "use_bias": s["bias"],
        "vocab_size": len(words),
    }
    vision = {
        "hidden_act": "gelu_pytorch_tanh",
        "intermediate_size": 64,
        "layer_norm_eps": 1e-06,
        "num_channels": 3,
        "num_hidden_layers": 2,
        "spatial_merge_size": 2,
        **s["vision"],
    }
    config = PaddleOCRVLConfig(text_config=copy.deepcopy(text), vision_config=copy.deepcopy(vision), **tokens)
    save(folder, config, save_original_format=s["published"], **save_options)
    if s["published"]:
        kinds = {"architectures": ["PaddleOCRVLForConditionalGeneration"], "model_type": "paddleocr_vl"}
        old = {**vision, "model_type": "paddleocr_vl", "temporal_patch_size": 2, "tokens_per_second": 2}
        write_json(folder / "config.json", {**kinds, **text, **tokens, "vision_config": old})
    words.save_pretrained(folder)
    factor = vision["patch_size"] * vision["spatial_merge_size"]
    write_json(
        folder / "preprocessor_config.json",
        {
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_processor_type": "PaddleOCRVLImageProcessor",
            "image_std": [0.5, 0.5, 0.5],
            "max_pixels": 30 * factor**2,
            "merge_size": vision["spatial_merge_size"],
            "min_pixels": 4 * factor**2,
            "patch_size": vision["patch_size"],
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            "temporal_patch_size": 1,
        },
    )
    write_json(folder / "processor_config.json", {"processor_class": "PaddleOCRVLProcessor"})
    return folder
