"""LLaVA with a CLIP-L/336 tower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaProcessor, Qwen2Config
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from benchmarks.shapes.base import TEMPLATE, Shape, tokenizer

LLAVA_IMAGE_TOKEN = 32000
CLIP_L_336 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}


def _llava(text: Any) -> Any:
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**CLIP_L_336),
        text_config=text,
        image_token_index=LLAVA_IMAGE_TOKEN,
        tie_word_embeddings=bool(text.tie_word_embeddings),
        dtype="bfloat16",
    )
    config.architectures = ["LlavaForConditionalGeneration"]
    return config


def _llava_1_5_7b() -> Any:
    sizes = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
    return _llava(LlamaConfig(vocab_size=32064, num_key_value_heads=32, max_position_embeddings=4096, **sizes))


def _llava_1b() -> Any:
    """Few layers with a wide MLP: they take less time to trace than many."""
    sizes = {"hidden_size": 2048, "intermediate_size": 22016, "num_hidden_layers": 6, "num_attention_heads": 16}
    config = _llava(LlamaConfig(vocab_size=32064, num_key_value_heads=16, max_position_embeddings=4096, **sizes))
    config.vision_config.num_hidden_layers = 4
    return config


def _clip_l_qwen2() -> Any:
    sizes = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14}
    heads = {"num_key_value_heads": 2, "max_position_embeddings": 4096, "tie_word_embeddings": True}
    return _llava(Qwen2Config(vocab_size=151936, **sizes, **heads))


def _save_llava_processor(folder: Path) -> None:
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer(LLAVA_IMAGE_TOKEN, []),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)


LLAVA: dict[str, Shape] = {
    "llava-1.5-7b": Shape(_llava_1_5_7b, _save_llava_processor),
    "llava-1b": Shape(_llava_1b, _save_llava_processor),
    "clip-l-336-qwen2-0.5b": Shape(_clip_l_qwen2, _save_llava_processor),
}
