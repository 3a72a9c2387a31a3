"""Newer families: the published dimensions (`tools/published_shapes.py`) with tokenizer, processor and prompts of the
family's tiny checkpoint of the tests."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from benchmarks.shapes.base import Shape
from tests.support import checkpoints
from tools.published_shapes import PUBLISHED, Dimensions

SPARE = 16
"""Ids of the vocabulary left for tokens that a tokenizer's class adds."""
Write = Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Twin:
    """How the checkpoint behind an alias differs from the tiny one in what decides the work of an image."""

    alias: str
    tiny: Write
    processor: Mapping[str, Any] = field(default_factory=dict)
    """Entries of preprocessor_config.json."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Entries of processor_config.json."""
    config_entries: Mapping[str, Any] = field(default_factory=dict)
    """Entries of config.json beside the published ones."""
    text: Mapping[str, Any] = field(default_factory=dict)
    """Entries of its text_config, likewise."""

    def config(self) -> Any:
        """transformers' own, in bfloat16."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "tiny"
            self.tiny(folder)
            self._write_config(folder, folder)
            return AutoConfig.from_pretrained(folder)

    def _write_config(self, tiny: Path, folder: Path) -> None:
        """config.json in the words that the tiny one has: those of the hub, which older converters read too."""
        published = PUBLISHED[self.alias]
        config = json.loads((tiny / "config.json").read_text(encoding="utf-8"))
        text = {"dtype": "bfloat16", **config["text_config"], **_whole(published.text), **self.text}
        parts = {"text_config": text, "vision_config": {**config["vision_config"], **published.vision}}
        tied = published.text["tie_word_embeddings"]
        more = {**published.more, **self.config_entries}
        whole = {**config, **more, **parts, "tie_word_embeddings": tied, "dtype": "bfloat16"}
        (folder / "config.json").write_text(json.dumps(whole), encoding="utf-8")

    def save_processor(self, folder: Path) -> None:
        """Tokenizer, chat template and processor; and the configuration as the hub has it."""
        with tempfile.TemporaryDirectory() as name:
            tiny = Path(name) / "tiny"
            self.tiny(tiny)
            self._write_config(tiny, folder)
            for file in tiny.iterdir():
                if file.suffix != ".safetensors" and file.name != "config.json":
                    shutil.copy(file, folder)
        _fill_vocabulary(folder / "tokenizer.json", PUBLISHED[self.alias].text["vocab_size"])
        for name, more in (("preprocessor_config.json", self.processor), ("processor_config.json", self.settings)):
            if more:
                file = folder / name
                found = json.loads(file.read_text(encoding="utf-8"))
                file.write_text(json.dumps(_merged(found, more)), encoding="utf-8")


def _fill_vocabulary(file: Path, size: int) -> None:
    """With tokens that no text has, so that tokenizer and head know of the same ones: converters cut the larger."""
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    vocab = tokenizer["model"]["vocab"]
    first = 1 + max(*vocab.values(), *(one["id"] for one in tokenizer["added_tokens"]))
    vocab.update({f"<extra_{number}>": number for number in range(first, size - SPARE)})
    file.write_text(json.dumps(tokenizer), encoding="utf-8")


def _merged(found: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`more` over what was found, and so in a dictionary of both."""
    inner = {name: {**found[name], **value} for name, value in more.items() if isinstance(found.get(name), dict)}
    return {**found, **more, **inner}


def _whole(text: Dimensions) -> Dimensions:
    """With the width of a head, which a tiny config may name."""
    return {"head_dim": text["hidden_size"] // text["num_attention_heads"], **text}


_SQUARE = {"size": {"shortest_edge": 1024}, "crop_size": {"height": 1024, "width": 1024}}
_TWINS = {
    "lfm2-vl-450m": Twin(
        "lfm2-vl",
        checkpoints.lfm2_vl,
        {
            "encoder_patch_size": 16,
            "tile_size": 512,
            "max_tiles": 10,
            "min_image_tokens": 64,
            "max_image_tokens": 256,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        },
    ),
    "qwen3-vl-2b": Twin(
        "qwen3-vl",
        checkpoints.qwen3_vl,
        {"patch_size": 16, "size": {"shortest_edge": 65536, "longest_edge": 16777216}},
    ),
    "internvl3-1b": Twin(
        "internvl3",
        checkpoints.internvl,
        {"size": {"height": 448, "width": 448}},
        {"image_seq_length": 256},
        {"image_seq_length": 256, "downsample_ratio": 0.5},
    ),
    "fastvlm-0.5b": Twin(
        "fastvlm",
        checkpoints.fast_vlm,
        settings={"image_processor": _SQUARE},
        text={"layer_types": ["full_attention"] * 24},
    ),
    "gemma3-4b": Twin(
        "gemma3",
        checkpoints.gemma3,
        {"size": {"height": 896, "width": 896}, "image_seq_length": 256},
        {"image_seq_length": 256},
        {"mm_tokens_per_image": 256},
        {"query_pre_attn_scalar": 256, "sliding_window": 1024, "sliding_window_pattern": 6},
    ),
}
TWINS: dict[str, Shape] = {name: Shape(twin.config, twin.save_processor) for name, twin in _TWINS.items()}
