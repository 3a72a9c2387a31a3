"""LLaVA with Pixtral's tower and Mistral 3, with the file names, config keys and weight names of
`mistral-community/pixtral-12b` and `mistralai/Mistral-Small-3.1-24B-Instruct-2503`, and as today's transformers writes
them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import LlavaConfig, Mistral3Config, PreTrainedConfig
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

from tests.support.checkpoints.weights import save, write_json
from tests.support.checkpoints.words import tokenizer

MARKS = ("[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")
TEMPLATE = (
    "{{- bos_token }}{%- for message in messages %}{%- if message['role'] == 'system' %}"
    "{{- '[SYSTEM_PROMPT]' + (message['content'] if message['content'] is string else message['content'][0]['text'])"
    " + '[/SYSTEM_PROMPT]' }}{%- elif message['role'] == 'user' %}{{- '[INST]' }}"
    "{%- if message['content'] is string %}{{- message['content'] }}{%- else %}"
    "{%- for block in message['content'] %}{%- if block['type'] == 'text' %}{{- block['text'] }}"
    "{%- elif block['type'] in ['image', 'image_url'] %}{{- '[IMG]' }}{%- endif %}{%- endfor %}{%- endif %}"
    "{{- '[/INST]' }}{%- else %}{{- (message['content'] if message['content'] is string else"
    " message['content'][0]['text']) + eos_token }}{%- endif %}{%- endfor %}"
)

YARN = {
    "rope_type": "yarn",
    "type": "yarn",
    "rope_theta": 10000.0,
    "factor": 32.0,
    "original_max_position_embeddings": 32,
    "max_position_embeddings": 1024,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}
PIXTRAL_SHAPES: dict[str, dict[str, Any]] = {
    # config keys and weight names as published
    "published": {
        "text": {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32},
        "vision": {"hidden_size": 32, "num_attention_heads": 2, "patch_size": 16, "num_hidden_layers": 3},
        "edge": 96,
        "tied": False,
        "published": True,
    },
    # heads of 24 in groups of 3 and of 12 in the tower, an inner layer, a window shorter than a prompt
    "window-24": {
        "text": {"hidden_size": 72, "num_attention_heads": 3, "num_key_value_heads": 1, "sliding_window": 24},
        "vision": {"hidden_size": 36, "num_attention_heads": 3, "patch_size": 10, "num_hidden_layers": 2},
        "edge": 75,
        "tied": True,
        "published": False,
        "layer": -2,
    },
    "two-layers": {
        "text": {"hidden_size": 80, "num_attention_heads": 5, "num_key_value_heads": 1},
        "vision": {"hidden_size": 40, "num_attention_heads": 1, "patch_size": 12, "num_hidden_layers": 2},
        "edge": 110,
        "tied": False,
        "published": False,
        "layer": [0, -1],
    },
    "full-heads": {
        "text": {"hidden_size": 96, "num_attention_heads": 2, "num_key_value_heads": 2},
        "vision": {"hidden_size": 64, "num_attention_heads": 2, "patch_size": 8, "num_hidden_layers": 2},
        "edge": 64,
        "tied": True,
        "published": True,
        "draw": {"seed": 5},  # others repeat themselves
    },
}
MISTRAL3_SHAPES: dict[str, dict[str, Any]] = {
    "published": {
        "text": {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 48},
        "vision": {"hidden_size": 32, "num_attention_heads": 2, "patch_size": 12, "num_hidden_layers": 3},
        "edge": 130,
        "merge": 2,
        "tied": False,
        "published": True,
    },
    # Ministral 3: YaRN, and queries that grow with their position within the prompt
    "ministral3": {
        "text": {
            "model_type": "ministral3",
            "hidden_size": 72,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 24,
            "rope_parameters": YARN,
        },
        "vision": {"hidden_size": 36, "num_attention_heads": 3, "patch_size": 7, "num_hidden_layers": 2},
        "edge": 90,
        "merge": 2,
        "tied": True,
        "published": True,
    },
    "merge-3": {
        "text": {"hidden_size": 80, "num_attention_heads": 5, "num_key_value_heads": 5, "sliding_window": 20},
        "vision": {"hidden_size": 40, "num_attention_heads": 1, "patch_size": 6, "num_hidden_layers": 2},
        "edge": 100,
        "merge": 3,
        "tied": False,
        "published": False,
        "layer": -2,
    },
    "ministral3-untied": {
        "text": {
            "model_type": "ministral3",
            "hidden_size": 96,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "rope_parameters": YARN,
        },
        "vision": {"hidden_size": 32, "num_attention_heads": 2, "patch_size": 14, "num_hidden_layers": 2},
        "edge": 140,
        "merge": 1,
        "tied": False,
        "published": False,
    },
}


def pixtral(folder: Path, shape: str = "published", **save_options: Any) -> Path:
    """A LLaVA checkpoint with Pixtral's tower; `save_options` as for `save`."""
    s = PIXTRAL_SHAPES[shape]
    save_options |= s.get("draw", {})
    more = {"vision_feature_select_strategy": "full", "image_seq_length": 1}
    return _made(folder, LlavaConfig, s, more, {"patch_size": s["vision"]["patch_size"]}, save_options)


def mistral3(folder: Path, shape: str = "published", **save_options: Any) -> Path:
    """A Mistral 3 checkpoint; `save_options` as for `save`."""
    s = MISTRAL3_SHAPES[shape]
    merge = {"spatial_merge_size": s["merge"]}
    settings = {"patch_size": s["vision"]["patch_size"], **merge}
    return _made(folder, Mistral3Config, s, {**merge, "multimodal_projector_bias": s["tied"]}, settings, save_options)


def _made(
    folder: Path,
    config: type[PreTrainedConfig],
    s: dict[str, Any],
    more: dict[str, Any],
    settings: dict[str, Any],
    save_options: dict[str, Any],
) -> Path:
    words = tokenizer("[IMG]", MARKS)
    words.chat_template = TEMPLATE
    text = {
        "model_type": "mistral",
        "intermediate_size": 112,
        "num_hidden_layers": 2,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "vocab_size": len(words),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": s["tied"],
        **s["text"],
    }
    if text["model_type"] == "ministral3":
        del text["rope_theta"]
    vision = {
        "model_type": "pixtral",
        "head_dim": s["vision"]["hidden_size"] // s["vision"]["num_attention_heads"],
        "hidden_act": "silu",
        "image_size": s["edge"],
        "intermediate_size": 56,
        "num_channels": 3,
        "rope_theta": 10000.0,
        **s["vision"],
    }
    whole = {
        "image_token_index": words.convert_tokens_to_ids("[IMG]"),
        "projector_hidden_act": "gelu",
        "text_config": text,
        "vision_config": vision,
        "vision_feature_layer": s.get("layer", -1),
        "tie_word_embeddings": s["tied"],
        **more,
    }
    published = s["published"]
    copied = {name: dict(value) if isinstance(value, dict) else value for name, value in whole.items()}
    save(folder, config(**copied), save_original_format=published, **save_options)
    if published:  # the config in the words of its time
        kind = {"llava": "LlavaForConditionalGeneration", "mistral3": "Mistral3ForConditionalGeneration"}
        named = {"architectures": [kind[config.model_type]], "model_type": config.model_type}
        write_json(folder / "config.json", {**named, **whole, "torch_dtype": "float32"})
    words.save_pretrained(folder)
    PixtralImageProcessorPil(
        patch_size={"height": settings["patch_size"], "width": settings["patch_size"]},
        size={"longest_edge": s["edge"]},
    ).save_pretrained(folder)
    marks = dict(zip(("image_token", "image_break_token", "image_end_token"), MARKS, strict=False))
    write_json(folder / "processor_config.json", {"processor_class": "PixtralProcessor", **settings, **marks})
    return folder
