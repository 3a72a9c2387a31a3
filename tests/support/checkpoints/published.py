"""Twins of checkpoints as they lie on the hub: the same file names, config keys and chat templates, tiny dimensions.

`xtuner/llava-llama-3-8b-v1_1-transformers` and `xtuner/llava-phi-3-mini-hf` were written by transformers 4.40: no
processor_config.json, sharded weights, the image token's name of that time, and the language model's own chat template,
which knows strings alone, in tokenizer_config.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForImageTextToText

from tests.support.checkpoints.weights import randomize, write_json
from tests.support.checkpoints.words import CORPUS

LLAMA3_TEMPLATE = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
PHI3_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') %}{{'<|user|>' + '\n' + "
    "message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n'}}{% elif (message['role'] == 'assistant') %}"
    "{{message['content'] + '<|end|>' + '\n'}}{% endif %}{% endfor %}"
)

OLDEST = "4.36.0.dev0"
"""Wrote no more of a text config than what its class does not assume: no end token in Vicuna's."""


@dataclass(frozen=True)
class Layout:
    """What sets one published checkpoint apart."""

    template: str | None
    bos: str
    eos: str
    special: Sequence[str]
    tokenizer: Callable[[], tokenizers.Tokenizer]
    text_config: dict[str, Any]
    generation: dict[str, Any]
    turn_end: str
    prompt: str
    """As the model card has it, about one image."""


def _byte_level() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    return made


def _sentence_piece() -> tokenizers.Tokenizer:
    """Llama 2's kind: a space before the first word, bytes for what is not in the vocabulary."""
    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=len(first) + 60, special_tokens=first, show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    content = json.loads(made.to_str())
    content["added_tokens"] = content["added_tokens"][:3]  # bytes are words
    return tokenizers.Tokenizer.from_str(json.dumps(content))


LAYOUTS = {
    "llava-llama3": Layout(
        LLAMA3_TEMPLATE,
        "<|begin_of_text|>",
        "<|end_of_text|>",
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        _byte_level,
        {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "num_key_value_heads": 2,
            "rope_theta": 500000.0,
        },
        {"_from_model_config": True, "transformers_version": "4.40.1"},
        "<|eot_id|>",
        "<|start_header_id|>user<|end_header_id|>\n\n<image>\n{}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "llava-phi3": Layout(
        PHI3_TEMPLATE,
        "<s>",
        "<|endoftext|>",
        ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"),
        _sentence_piece,
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "sliding_window": 2047, "rope_theta": 10000.0},
        {"_from_model_config": True, "transformers_version": "4.40.1"},
        "<|end|>",
        "<|user|>\n<image>\n{}<|end|>\n<|assistant|>\n",
    ),
    "llava-1.5": Layout(
        None,
        "<s>",
        "</s>",
        (),
        _sentence_piece,
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "_name_or_path": "lmsys/vicuna-7b-v1.5"},
        {"_from_model_config": True, "transformers_version": OLDEST},
        "</s>",
        "USER: <image>\n{} ASSISTANT:",
    ),
}
_VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "projection_dim": 24,
    "vocab_size": 32000,
}


def published(folder: Path, name: str, seed: int = 1, gain: float = 1.3) -> Path:
    """The twin of one of `LAYOUTS`, in `folder`. `seed` and `gain`: as for `randomize`."""
    layout = LAYOUTS[name]
    folder.mkdir(parents=True)
    words = layout.tokenizer()
    words.add_special_tokens([AddedToken(token, normalized=False) for token in (*layout.special, "<image>", "<pad>")])
    bos, eos, pad, image = (words.token_to_id(token) for token in (layout.bos, layout.eos, "<pad>", "<image>"))
    words.post_processor = processors.TemplateProcessing(f"{layout.bos} $A", special_tokens=[(layout.bos, bos)])
    words.save(str(folder / "tokenizer.json"))
    special = {"bos_token": layout.bos, "eos_token": layout.eos, "pad_token": "<pad>"}
    write_json(folder / "special_tokens_map.json", special)
    more = {} if layout.template is None else {"chat_template": layout.template}
    write_json(
        folder / "tokenizer_config.json",
        {**special, **more, "processor_class": "LlavaProcessor", "tokenizer_class": "LlamaTokenizer"},
    )
    text = {
        "hidden_size": 64,
        "intermediate_size": 112,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 640,
        "rms_norm_eps": 1e-05,
        "torch_dtype": "float32",
        "vocab_size": -(-words.get_vocab_size() // 64) * 64,
        **({} if layout.generation["transformers_version"] == OLDEST else {"bos_token_id": bos, "eos_token_id": eos}),
        **layout.text_config,
    }
    write_json(
        folder / "config.json",
        {
            "architectures": ["LlavaForConditionalGeneration"],
            "ignore_index": -100,
            "image_token_index": image,
            "model_type": "llava",
            "pad_token_id": pad,
            "projector_hidden_act": "gelu",
            "text_config": text,
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
            "transformers_version": layout.generation["transformers_version"],
            "vision_config": _VISION,
            "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default",
        },
    )
    write_json(folder / "preprocessor_config.json", _IMAGES)
    _weights(folder, seed, gain, words.token_to_id(layout.turn_end))
    write_json(
        folder / "generation_config.json",
        {**layout.generation, "bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad},
    )
    return folder


_IMAGES = {
    "crop_size": {"height": 28, "width": 28},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "processor_class": "LlavaProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 28},
}


def _weights(folder: Path, seed: int, gain: float, end: int) -> None:
    """Random ones, in shards, that end answers with `end` now and then; the files beside them stay as they are."""
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32).eval()
    randomize(model, seed, gain)
    with torch.no_grad():
        head = model.lm_head.weight
        signs = torch.sign(torch.randn(head.shape[1], generator=torch.Generator().manual_seed(seed + 2)))
        head[end] = head[:300].abs().max() * 3 * signs
    model.save_pretrained(folder, max_shard_size="200KB")
    for path, content in kept.items():
        path.write_bytes(content)
