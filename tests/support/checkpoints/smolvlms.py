"""SmolVLM checkpoints: SmolVLM2, and the first, which is an Idefics3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import Idefics3Config, LlamaConfig, PreTrainedConfig, SmolVLMConfig
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from tests.support.checkpoints.weights import save, write_json
from tests.support.checkpoints.words import tokenizer

SMOLVLM_SHAPES: dict[str, dict[str, Any]] = {
    "tiles": {"tile": 32, "patch": 8, "scale": 2, "longest": 96, "heads": 3, "kv": 1, "hidden": 48},
    "odd-shuffle": {"tile": 42, "patch": 7, "scale": 3, "longest": 100, "heads": 2, "kv": 2, "hidden": 64},
}


def smolvlm(folder: Path, shape: str = "tiles", **save_options: Any) -> Path:
    """A SmolVLM2 checkpoint; `save_options` as for `save`."""
    return _save(folder, shape, SmolVLMConfig, SmolVLMImageProcessorPil, **save_options)


def idefics3(folder: Path, shape: str = "tiles", **save_options: Any) -> Path:
    """A checkpoint of the first SmolVLM; `save_options` as for `save`."""
    return _save(folder, shape, Idefics3Config, Idefics3ImageProcessorPil, **save_options)


def _save(folder: Path, shape: str, kind: type[PreTrainedConfig], image_processor: Any, **save_options: Any) -> Path:
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
        "model_type": f"{kind.model_type}_vision",
        "hidden_size": 36,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": s["tile"],
        "patch_size": s["patch"],
    }
    config = kind(
        text_config=text.to_dict(),
        vision_config=vision,
        scale_factor=s["scale"],
        image_token_id=words.convert_tokens_to_ids("<image>"),
        pad_token_id=0,
    )
    save(folder, config, **save_options)
    words.save_pretrained(folder)
    image_processor(size={"longest_edge": s["longest"]}, max_image_size={"longest_edge": s["tile"]}).save_pretrained(
        folder
    )
    tokens = (s["tile"] // s["patch"] // s["scale"]) ** 2
    processor = image_processor.__name__.replace("ImageProcessorPil", "Processor")
    write_json(folder / "processor_config.json", {"processor_class": processor, "image_seq_len": tokens})
    return folder
