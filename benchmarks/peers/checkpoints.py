"""The models that every peer is made from: the shape's checkpoint, and its language model alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks import folders
from benchmarks.peers.base import Room

_LANGUAGE = {
    "model.language_model.": "model.",
    "model.text_model.": "model.",
    "lm_head.": "lm_head.",
    "language_model.model.": "model.",  # as transformers saves LLaVA
    "language_model.lm_head.": "lm_head.",
}
"""Beginnings of names in the whole model, and in the language model alone."""
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
ARCHITECTURES = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}


def ensure(room: Room) -> None:
    """Make both folders, where they are missing; of language models that stand alone, as `ARCHITECTURES` has them, the
    second."""
    from benchmarks.shapes import make_checkpoint

    folders.ensure(room.checkpoint, lambda folder: make_checkpoint(folder, room.shape))
    if _config(room.checkpoint)["text_config"]["model_type"] in ARCHITECTURES:
        folders.ensure(room.decoder, lambda folder: write_decoder(room.checkpoint, folder))


def _config(checkpoint: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    return found


def write_decoder(checkpoint: Path, folder: Path) -> None:
    """The language model of a vision-language checkpoint, as a checkpoint of its own."""
    from safetensors.torch import load_file, save_file

    folder.mkdir(parents=True)
    whole = _config(checkpoint)
    (folder / "config.json").write_text(json.dumps(decoder_config(whole), indent=1), encoding="utf-8")
    for name in _TOKENIZER:
        if (checkpoint / name).exists():
            shutil.copy(checkpoint / name, folder / name)
    shards = sorted(checkpoint.glob("*.safetensors"))
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards):
        tensors = {decoder_name(name): tensor for name, tensor in load_file(shard).items() if decoder_name(name)}
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, file)
    if len(shards) > 1:
        index = json.dumps({"metadata": {}, "weight_map": weight_map})
        (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")


def decoder_config(whole: dict[str, Any]) -> dict[str, Any]:
    """The text part as a config of its own, readable by transformers 4 and 5."""
    text = dict(whole["text_config"])
    rope = text.get("rope_parameters") or {}
    return {
        **text,
        "architectures": [ARCHITECTURES[text["model_type"]]],
        "rope_theta": rope.get("rope_theta", 10000.0),
        "bos_token_id": 1,
        "eos_token_id": 1,
        "tie_word_embeddings": text.get("tie_word_embeddings", whole.get("tie_word_embeddings", False)),
        "torch_dtype": "bfloat16",
        "dtype": "bfloat16",
    }


def decoder_name(name: str) -> str:
    """A tensor's name in the language model alone; empty where it is not part of it."""
    for theirs, alone in _LANGUAGE.items():
        if name.startswith(theirs):
            return alone + name.removeprefix(theirs)
    return ""
