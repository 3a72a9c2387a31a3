"""Tiny random checkpoints of the real architectures, saved as a Hugging Face user would find them.

Weights are drawn wide enough that greedy answers vary with image and question. Everything is seeded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    GemmaConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2Config,
    Qwen3Config,
    SiglipVisionConfig,
    SmolVLMConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

CORPUS = ["describe this image what is in the picture is there a scratch user assistant no yes"] * 3
SPECIAL = [
    "<pad>",
    "<s>",
    "</s>",
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    "<|vision_start|>",
    "<|vision_end|>",
]
SPECIAL += ["<|image_pad|>", *(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5))]

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] | upper }}: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}\n{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)

_TEXT = {"hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 2, "max_position_embeddings": 640}
_HEADS = {**_TEXT, "num_attention_heads": 4}

DECODERS: dict[str, Callable[..., PreTrainedConfig]] = {
    "llama-full-heads": lambda **kw: LlamaConfig(**_HEADS, num_key_value_heads=4, **kw),
    "llama-head-80": lambda **kw: LlamaConfig(
        **{**_HEADS, "hidden_size": 160, "num_attention_heads": 2}, num_key_value_heads=1, **kw
    ),
    "llama3-rope": lambda **kw: LlamaConfig(
        **_HEADS,
        num_key_value_heads=2,
        attention_bias=True,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        **kw,
    ),
    "mistral-window": lambda **kw: MistralConfig(**_HEADS, num_key_value_heads=2, sliding_window=9, **kw),
    "mistral-head-128": lambda **kw: MistralConfig(
        **_HEADS, num_key_value_heads=2, head_dim=128, sliding_window=None, **kw
    ),
    "qwen2": lambda **kw: Qwen2Config(**_HEADS, num_key_value_heads=2, **kw),
    "qwen2-tied": lambda **kw: Qwen2Config(**_HEADS, num_key_value_heads=1, tie_word_embeddings=True, **kw),
    "qwen3": lambda **kw: Qwen3Config(**_HEADS, num_key_value_heads=2, head_dim=64, **kw),
    "phi3": lambda **kw: Phi3Config(
        **{**_HEADS, "hidden_size": 192, "num_attention_heads": 2}, num_key_value_heads=2, **kw
    ),
    "gemma": lambda **kw: GemmaConfig(**_HEADS, num_key_value_heads=1, head_dim=32, **kw),
}
"""Text decoders: biases and none, q/k norms, tied and untied heads, grouped and full heads, head sizes 16 to 128."""


def _clip() -> tuple[PreTrainedConfig, Any, dict[str, Any]]:
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14
    )
    return config, CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}), {}


def _clip_two_layers() -> tuple[PreTrainedConfig, Any, dict[str, Any]]:
    config, processor, _ = _clip()
    return config, processor, {"vision_feature_layer": [-3, -2]}


def _siglip() -> tuple[PreTrainedConfig, Any, dict[str, Any]]:
    config = SiglipVisionConfig(
        hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=3, image_size=42, patch_size=14
    )
    processor = SiglipImageProcessorPil(size={"height": 42, "width": 42})
    return config, processor, {"vision_feature_select_strategy": "full", "vision_feature_layer": -1}


TOWERS: dict[str, Callable[[], tuple[PreTrainedConfig, Any, dict[str, Any]]]] = {
    "clip": _clip,
    "clip-two-layers": _clip_two_layers,
    "siglip": _siglip,
}
"""Vision towers with their image processors and what they change in the LLaVA config."""


def tokenizer(image_token: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE with the special tokens of the three families."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=len(SPECIAL) + 300,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=SPECIAL[3:],
        extra_special_tokens={"image_token": image_token},
        chat_template=CHAT_TEMPLATE.replace("IMAGE", image_token),
    )


def randomize(model: PreTrainedModel, seed: int) -> None:
    """Weights of a size at which answers vary; norms near one."""
    generator = torch.Generator().manual_seed(seed)
    tied = model.config.tie_word_embeddings
    scale = getattr(model.get_input_embeddings(), "scalar_embed_scale", 1.0)
    wide = 0.15 / scale if tied else 1.0  # a tied head would otherwise only repeat the last token
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(noise * wide if "embed_tokens" in name else noise * 0.9 / fan_in**0.5)
            else:
                parameter.add_(noise * 0.1)


def save(folder: Path, config: PreTrainedConfig, seed: int = 0, **save_options: Any) -> Path:
    """Random weights for `config`, saved as safetensors."""
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32).eval()
    randomize(model, seed)
    model.save_pretrained(folder, **save_options)
    return folder


def llava(folder: Path, decoder: str = "qwen2", tower: str = "clip", **save_options: Any) -> Path:
    """A LLaVA checkpoint: any of `DECODERS` with any of `TOWERS`."""
    words = tokenizer("<image>")
    vision, image_processor, changes = TOWERS[tower]()
    text = DECODERS[decoder](vocab_size=len(words), bos_token_id=1, eos_token_id=2, pad_token_id=0)
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=bool(text.tie_word_embeddings),
        **changes,
    )
    save(folder, config, **save_options)
    LlavaProcessor(
        image_processor=image_processor,
        tokenizer=words,
        patch_size=14,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1 if tower.startswith("clip") else 0,
        chat_template=words.chat_template,
    ).save_pretrained(folder)
    return folder


SMOLVLM_SHAPES: dict[str, dict[str, Any]] = {
    "tiles": {"tile": 32, "patch": 8, "scale": 2, "longest": 96, "heads": 3, "kv": 1, "hidden": 48},
    "odd-shuffle": {"tile": 42, "patch": 7, "scale": 3, "longest": 100, "heads": 2, "kv": 2, "hidden": 64},
}


def smolvlm(folder: Path, shape: str = "tiles") -> Path:
    """A SmolVLM checkpoint."""
    s = SMOLVLM_SHAPES[shape]
    words = tokenizer("<image>")
    text = LlamaConfig(
        vocab_size=len(words),
        hidden_size=s["hidden"],
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=s["heads"],
        num_key_value_heads=s["kv"],
        max_position_embeddings=1024,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    vision = {
        "model_type": "smolvlm_vision",
        "hidden_size": 36,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": s["tile"],
        "patch_size": s["patch"],
    }
    config = SmolVLMConfig(
        text_config=text.to_dict(),
        vision_config=vision,
        scale_factor=s["scale"],
        image_token_id=words.convert_tokens_to_ids("<image>"),
        pad_token_id=0,
    )
    save(folder, config)
    words.save_pretrained(folder)
    SmolVLMImageProcessorPil(
        size={"longest_edge": s["longest"]}, max_image_size={"longest_edge": s["tile"]}
    ).save_pretrained(folder)
    tokens = (s["tile"] // s["patch"] // s["scale"]) ** 2
    _write(folder / "processor_config.json", {"processor_class": "SmolVLMProcessor", "image_seq_len": tokens})
    return folder


QWEN_SHAPES: dict[str, dict[str, Any]] = {
    "window-4": {"patch": 14, "window": 112, "depth": 3, "full": [1], "heads": 2, "width": 32, "sections": [2, 3, 3]},
    "window-3": {"patch": 10, "window": 60, "depth": 2, "full": [1], "heads": 3, "width": 72, "sections": [4, 2, 2]},
}


def qwen2_5_vl(folder: Path, shape: str = "window-4") -> Path:
    """A Qwen2.5-VL checkpoint."""
    s = QWEN_SHAPES[shape]
    words = tokenizer("<|image_pad|>")
    ids = words.convert_tokens_to_ids
    text = {
        **_HEADS,
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
    save(folder, config)
    words.chat_template = words.chat_template.replace("<|image_pad|>", "<|vision_start|><|image_pad|><|vision_end|>")
    words.save_pretrained(folder)
    factor = 2 * s["patch"]
    Qwen2VLImageProcessorPil(
        patch_size=s["patch"], size={"shortest_edge": 4 * factor**2, "longest_edge": 40 * factor**2}
    ).save_pretrained(folder)
    _write(folder / "processor_config.json", {"processor_class": "Qwen2_5_VLProcessor"})
    return folder


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
