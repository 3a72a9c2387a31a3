"""LLaVA-NeXT and LLaVA-OneVision checkpoints, with the file names and config keys of
`llava-hf/llava-v1.6-mistral-7b-hf` and `llava-hf/llava-onevision-qwen2-0.5b-ov-hf`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import CLIPVisionConfig, LlavaNextConfig, LlavaOnevisionConfig, SiglipVisionConfig
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

from tests.support.checkpoints.decoders import DECODERS
from tests.support.checkpoints.weights import save, write_json
from tests.support.checkpoints.words import tokenizer

NEXT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}{% endfor %}"
    "{{ ' [/INST]' }}{% else %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ ' ' + part['text'] + '</s>' }}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
)
ONEVISION_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + part['text'] }}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""What the published templates write: a message's images, then its texts."""

PATCH = 14
ONES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}

LLAVA_NEXT_SHAPES: dict[str, dict[str, Any]] = {
    # weights under their first names, the chat template's form; a window shorter than the prompt
    "published": {"decoder": "mistral-window", "side": 2, "published": True},
    # heads of 24 in groups of 2, tiles of 3 x 3 tokens, one tile among the sizes
    "heads-of-24": {"decoder": "llama-head-24", "side": 3, "sizes": [(1, 1), (2, 1), (1, 3), (2, 2)]},
    # two layers of a tower without a class token, as Granite Vision has it
    "siglip": {
        "decoder": "llama-full-heads",
        "side": 3,
        "tower": "siglip",
        "changes": {"vision_feature_select_strategy": "full", "vision_feature_layer": [-3, -1]},
    },
    # the processor's numbers left to the model's config
    "tied": {"decoder": "qwen2-tied", "side": 2, "sizes": [(1, 4), (4, 1), (2, 2)], "settings": False},
}
SIZES = [(1, 2), (2, 1), (2, 2), (3, 1), (1, 3)]
"""Rows and columns of tiles, in the order of published `image_grid_pinpoints`."""

LLAVA_ONEVISION_SHAPES: dict[str, dict[str, Any]] = {
    "published": {"decoder": "qwen2", "side": 3, "most": 2, "published": True},
    "heads-of-24": {"decoder": "llama-head-24", "side": 2, "most": 3},
    "tied": {"decoder": "qwen2-tied", "side": 4, "most": 1},
    "never-interpolated": {"decoder": "qwen3", "side": 2, "most": 9},
}


def llava_next(folder: Path, shape: str = "published", **save_options: Any) -> Path:
    """A LLaVA-NeXT checkpoint; `save_options` as for `save`."""
    s = LLAVA_NEXT_SHAPES[shape]
    tile = s["side"] * PATCH
    clip = s.get("tower", "clip") == "clip"
    tower: Any = CLIPVisionConfig if clip else SiglipVisionConfig
    sizes = [[rows * tile, columns * tile] for rows, columns in s.get("sizes", SIZES)]
    words = tokenizer("<image>")
    if s.get("published", False):
        words.chat_template = NEXT_TEMPLATE
    text = DECODERS[s["decoder"]](vocab_size=len(words), bos_token_id=1, eos_token_id=2, pad_token_id=0)
    config = LlavaNextConfig(
        vision_config=tower(**ONES, image_size=tile, patch_size=PATCH),
        text_config=text,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=sizes,
        tie_word_embeddings=bool(text.tie_word_embeddings),
        **s.get("changes", {}),
    )
    save(folder, config, save_original_format=s.get("published", False), **save_options)
    words.save_pretrained(folder)
    source = LlavaNextImageProcessorPil(
        size={"shortest_edge": tile}, crop_size={"height": tile, "width": tile}, image_grid_pinpoints=sizes
    )
    source.save_pretrained(folder)
    if s.get("settings", True):
        settings = {
            "image_token": "<image>",
            "num_additional_image_tokens": int(clip),
            "patch_size": PATCH,
            "vision_feature_select_strategy": config.vision_feature_select_strategy,
        }
        write_json(folder / "processor_config.json", {"processor_class": "LlavaNextProcessor", **settings})
    return folder


def llava_onevision(folder: Path, shape: str = "published", **save_options: Any) -> Path:
    """A LLaVA-OneVision checkpoint; `save_options` as for `save`."""
    s = LLAVA_ONEVISION_SHAPES[shape]
    tile = s["side"] * PATCH + 6  # a rest that no patch covers, as 384 has
    sizes = [[rows * tile, columns * tile] for rows in range(1, 5) for columns in range(1, 5)]
    words = tokenizer("<image>", ["<video>", "<|im_start|>", "<|im_end|>"])
    if s.get("published", False):
        words.chat_template = ONEVISION_TEMPLATE
    text = DECODERS[s["decoder"]](vocab_size=len(words), bos_token_id=1, eos_token_id=2, pad_token_id=0)
    word = f"anyres_max_{s['most']}"
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**ONES, image_size=tile, patch_size=PATCH, vision_use_head=False),
        text_config=text,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=sizes,
        vision_aspect_ratio=word,
        tie_word_embeddings=bool(text.tie_word_embeddings),
    )
    save(folder, config, save_original_format=s.get("published", False), **save_options)
    words.save_pretrained(folder)
    LlavaOnevisionImageProcessorPil(size={"height": tile, "width": tile}, image_grid_pinpoints=sizes).save_pretrained(
        folder
    )
    settings = {
        "image_token": "<image>",
        "num_image_tokens": s["side"] ** 2,
        "video_token": "<video>",
        "vision_aspect_ratio": word,
        "vision_feature_select_strategy": "full",
    }
    write_json(folder / "processor_config.json", {"processor_class": "LlavaOnevisionProcessor", **settings})
    return folder
