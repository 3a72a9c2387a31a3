"""Checkpoints with the exact shape of a real model and random weights: for speed and memory, not for answers.

Where no hub can be reached, these stand in for the real checkpoints: every product has its true size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SmolVLMConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from edgevlm_export.checkpoints import skeleton
from edgevlm_export.checkpoints.weights.files import INDEX
from edgevlm_export.checkpoints.weights.ties import tied_weights

SHARD_BYTES = 4 * 2**30
POOL_VALUES = 2**24
POOL_STRIDE = 104_729
"""Between the beginnings of two tensors in the pool; odd, so that no beginning comes twice."""

CLIP_L_336 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | upper }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
LLAVA_IMAGE_TOKEN = 32000
SMOLVLM_IMAGE_TOKEN = 49190
SMOLVLM_TOKENS = 64
"""Of one tile."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How to make the config, and what else belongs into the folder."""

    config: Callable[[], Any]
    save_processor: Callable[[Path], None]


def make_checkpoint(folder: Path, shape: str) -> int:
    """Write the checkpoint as sharded bfloat16 safetensors, and return the number of its parameters."""
    config = SHAPES[shape].config()
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    SHAPES[shape].save_processor(folder)
    weight_map: dict[str, str] = {}
    count = 0
    for number, shard in enumerate(_shards(config)):
        file = f"model-{number:05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
        count += sum(tensor.numel() for tensor in shard.values())
        shard.clear()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return count


def parameters(config: Any) -> dict[str, torch.Tensor]:
    """What the checkpoint holds, without values; of tied parameters only the owner."""
    model = skeleton.build(config)
    tied = tied_weights(model)
    return {name: parameter for name, parameter in model.named_parameters() if name not in tied}


def _shards(config: Any) -> Iterator[dict[str, torch.Tensor]]:
    """Random tensors in groups of at most SHARD_BYTES, norms at one. Values repeat a fixed pool: their making must not
    take hours. Each tensor begins elsewhere in it: no two layers are alike, for a converter that keeps equal weights
    once would make a model that fits the processor's cache."""
    pool = torch.randn(POOL_VALUES, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16) * 0.02
    shard: dict[str, torch.Tensor] = {}
    size = 0
    for number, (name, parameter) in enumerate(parameters(config).items()):
        values_wanted = parameter.numel()
        is_norm = parameter.ndim == 1 and name.endswith("weight")
        begin = POOL_STRIDE * number % POOL_VALUES
        repeated = pool.repeat(-(-(begin + values_wanted) // POOL_VALUES))[begin : begin + values_wanted]
        values = repeated.reshape(parameter.shape) + float(is_norm)
        if size + values.nbytes > SHARD_BYTES and shard:
            yield shard
            shard, size = {}, 0
        shard[name] = values.clone()
        size += values.nbytes
    yield shard


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


def _smolvlm_256m() -> Any:
    text = LlamaConfig(
        vocab_size=49280,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
    )
    vision = {
        "model_type": "smolvlm_vision",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 512,
        "patch_size": 16,
    }
    config = SmolVLMConfig(
        text_config=text.to_dict(),
        vision_config=vision,
        scale_factor=4,
        image_token_id=SMOLVLM_IMAGE_TOKEN,
        dtype="bfloat16",
    )
    config.architectures = ["SmolVLMForConditionalGeneration"]
    return config


def _tokenizer(image_token_id: int, others: list[str]) -> PreTrainedTokenizerFast:
    """One token per character; `others` are the special tokens before the image's, which is the last."""
    words = {"<unk>": 0, **{chr(code): code for code in range(32, 127)}}
    first = len(words) + 31
    words |= {f"<extra_{number}>": number for number in range(first, image_token_id - len(others))}
    words |= {f"<control_{number}>": number for number in range(1, 32)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.add_special_tokens([*others, "<image>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, extra_special_tokens={"image_token": "<image>"}, chat_template=TEMPLATE
    )


def _save_llava_processor(folder: Path) -> None:
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    LlavaProcessor(
        image_processor=image_processor,
        tokenizer=_tokenizer(LLAVA_IMAGE_TOKEN, []),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)


def _save_smolvlm_processor(folder: Path) -> None:
    """For images of one tile: the processor does not enlarge them to sixteen."""
    places = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    _tokenizer(SMOLVLM_IMAGE_TOKEN, ["<fake_token_around_image>", "<global-img>", *places]).save_pretrained(folder)
    SmolVLMImageProcessorPil(size={"longest_edge": 512}, max_image_size={"longest_edge": 512}).save_pretrained(folder)
    made = {"processor_class": "SmolVLMProcessor", "image_seq_len": SMOLVLM_TOKENS}
    (folder / "processor_config.json").write_text(json.dumps(made), encoding="utf-8")


SHAPES: dict[str, Shape] = {
    "llava-1.5-7b": Shape(_llava_1_5_7b, _save_llava_processor),
    "llava-1b": Shape(_llava_1b, _save_llava_processor),
    "clip-l-336-qwen2-0.5b": Shape(_clip_l_qwen2, _save_llava_processor),
    "smolvlm-256m": Shape(_smolvlm_256m, _save_smolvlm_processor),
}
"""LLaVA shapes have a CLIP-L/336 tower."""
