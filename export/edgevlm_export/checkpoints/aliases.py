"""Short names for checkpoints people use. An alias is only a name: the family is read off the checkpoint's config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ModelAlias:
    """A checkpoint on the Hugging Face hub, or the one that ships with edgevlm (`repo_id` None)."""

    repo_id: str | None
    family: str
    note: str
    licence: str
    """Of the weights, by the name on their card when the alias was added; the card is what counts."""


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes of a bundle, and what a process that asks it holds in memory on a CPU with 2,048 tokens of context."""

    bundle_bytes: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Parameters, and sizes by precision."""

    parameters: int
    precisions: Mapping[str, Size]


ALIASES: dict[str, ModelAlias] = {
    "inspector": ModelAlias(
        None, "llava", "shipped with edgevlm: inspects machined parts, works offline", "Apache-2.0"
    ),
    "llava": ModelAlias("llava-hf/llava-1.5-7b-hf", "llava", "LLaVA 1.5, 7B, Vicuna decoder", "Llama 2 Community"),
    "llava-13b": ModelAlias(
        "llava-hf/llava-1.5-13b-hf", "llava", "LLaVA 1.5, 13B, Vicuna decoder", "Llama 2 Community"
    ),
    "llava-llama3": ModelAlias(
        "xtuner/llava-llama-3-8b-v1_1-transformers", "llava", "LLaVA, 8B, Llama 3 decoder", "see its card"
    ),
    "llava-phi3": ModelAlias("xtuner/llava-phi-3-mini-hf", "llava", "LLaVA, 3.8B, Phi-3 mini decoder", "see its card"),
    "llava-interleave": ModelAlias(
        "llava-hf/llava-interleave-qwen-0.5b-hf",
        "llava",
        "LLaVA interleave, Qwen1.5 0.5B, SigLIP",
        "see its card",
    ),
    "llava-1.6": ModelAlias(
        "llava-hf/llava-v1.6-mistral-7b-hf", "llava_next", "LLaVA-NeXT (1.6), 7B, Mistral decoder", "Apache-2.0"
    ),
    "llava-1.6-vicuna": ModelAlias(
        "llava-hf/llava-v1.6-vicuna-7b-hf", "llava_next", "LLaVA-NeXT (1.6), 7B, Vicuna decoder", "Llama 2 Community"
    ),
    "llava-onevision": ModelAlias(
        "llava-hf/llava-onevision-qwen2-0.5b-ov-hf", "llava_onevision", "LLaVA-OneVision, 0.5B", "Apache-2.0"
    ),
    "vip-llava": ModelAlias(
        "llava-hf/vip-llava-7b-hf", "vipllava", "ViP-LLaVA, 7B, Vicuna decoder", "Llama 2 Community"
    ),
    "fastvlm": ModelAlias("KamilaMila/FastVLM-0.5B", "fast_vlm", "FastVLM, 0.5B", "Apple AMLR"),
    "fastvlm-1.5b": ModelAlias("KamilaMila/FastVLM-1.5B", "fast_vlm", "FastVLM, 1.5B", "Apple AMLR"),
    "fastvlm-7b": ModelAlias("KamilaMila/FastVLM-7B", "fast_vlm", "FastVLM, 7B", "Apple AMLR"),
    "smolvlm": ModelAlias("HuggingFaceTB/SmolVLM2-2.2B-Instruct", "smolvlm", "SmolVLM2, 2.2B", "Apache-2.0"),
    "smolvlm-256m": ModelAlias("HuggingFaceTB/SmolVLM2-256M-Video-Instruct", "smolvlm", "SmolVLM2, 256M", "Apache-2.0"),
    "smolvlm-500m": ModelAlias("HuggingFaceTB/SmolVLM2-500M-Video-Instruct", "smolvlm", "SmolVLM2, 500M", "Apache-2.0"),
    "smolvlm1": ModelAlias("HuggingFaceTB/SmolVLM-Instruct", "idefics3", "SmolVLM, the first, 2.2B", "Apache-2.0"),
    "smolvlm1-256m": ModelAlias(
        "HuggingFaceTB/SmolVLM-256M-Instruct", "idefics3", "SmolVLM, the first, 256M", "Apache-2.0"
    ),
    "smolvlm1-500m": ModelAlias(
        "HuggingFaceTB/SmolVLM-500M-Instruct", "idefics3", "SmolVLM, the first, 500M", "Apache-2.0"
    ),
    "qwen2-vl": ModelAlias("Qwen/Qwen2-VL-2B-Instruct", "qwen2_vl", "Qwen2-VL, 2B", "Apache-2.0"),
    "qwen2-vl-7b": ModelAlias("Qwen/Qwen2-VL-7B-Instruct", "qwen2_vl", "Qwen2-VL, 7B", "Apache-2.0"),
    "qwen2.5-vl": ModelAlias("Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl", "Qwen2.5-VL, 3B", "Qwen Research"),
    "qwen2.5-vl-7b": ModelAlias("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", "Qwen2.5-VL, 7B", "Apache-2.0"),
    "qwen3-vl": ModelAlias("Qwen/Qwen3-VL-2B-Instruct", "qwen3_vl", "Qwen3-VL, 2B", "Apache-2.0"),
    "qwen3-vl-4b": ModelAlias("Qwen/Qwen3-VL-4B-Instruct", "qwen3_vl", "Qwen3-VL, 4B", "Apache-2.0"),
    "qwen3-vl-8b": ModelAlias("Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl", "Qwen3-VL, 8B", "Apache-2.0"),
    "qwen3.5": ModelAlias("Qwen/Qwen3.5-2B", "qwen3_5", "Qwen3.5, 2B", "Apache-2.0"),
    "qwen3.5-0.8b": ModelAlias("Qwen/Qwen3.5-0.8B", "qwen3_5", "Qwen3.5, 0.8B", "Apache-2.0"),
    "qwen3.5-4b": ModelAlias("Qwen/Qwen3.5-4B", "qwen3_5", "Qwen3.5, 4B", "Apache-2.0"),
    "qwen3.5-9b": ModelAlias("Qwen/Qwen3.5-9B", "qwen3_5", "Qwen3.5, 9B", "Apache-2.0"),
    "paddleocr-vl": ModelAlias(
        "PaddlePaddle/PaddleOCR-VL", "paddleocr_vl", "PaddleOCR-VL, 0.9B, reads documents", "Apache-2.0"
    ),
    "gemma3": ModelAlias("google/gemma-3-4b-it", "gemma3", "Gemma 3, 4B", "Gemma"),
    "gemma3-12b": ModelAlias("google/gemma-3-12b-it", "gemma3", "Gemma 3, 12B", "Gemma"),
    "gemma4": ModelAlias("google/gemma-4-E2B-it", "gemma4", "Gemma 4, E2B", "Apache-2.0"),
    "gemma4-e4b": ModelAlias("google/gemma-4-E4B-it", "gemma4", "Gemma 4, E4B", "Apache-2.0"),
    "paligemma": ModelAlias("google/paligemma-3b-mix-224", "paligemma", "PaliGemma, 3B", "Gemma"),
    "paligemma2": ModelAlias("google/paligemma2-3b-mix-224", "paligemma", "PaliGemma 2, 3B", "Gemma"),
    "paligemma2-448": ModelAlias(
        "google/paligemma2-3b-mix-448", "paligemma", "PaliGemma 2, 3B, larger images", "Gemma"
    ),
    "internvl3": ModelAlias("OpenGVLab/InternVL3-1B-hf", "internvl", "InternVL 3, 1B", "see its card"),
    "internvl3-2b": ModelAlias("OpenGVLab/InternVL3-2B-hf", "internvl", "InternVL 3, 2B", "see its card"),
    "internvl3-8b": ModelAlias("OpenGVLab/InternVL3-8B-hf", "internvl", "InternVL 3, 8B", "see its card"),
    "internvl3.5": ModelAlias("OpenGVLab/InternVL3_5-1B-HF", "internvl", "InternVL 3.5, 1B", "Apache-2.0"),
    "internvl3.5-4b": ModelAlias("OpenGVLab/InternVL3_5-4B-HF", "internvl", "InternVL 3.5, 4B", "Apache-2.0"),
    "internvl3.5-8b": ModelAlias("OpenGVLab/InternVL3_5-8B-HF", "internvl", "InternVL 3.5, 8B", "Apache-2.0"),
    "lfm2-vl": ModelAlias("LiquidAI/LFM2-VL-450M", "lfm2_vl", "LFM2-VL, 450M", "LFM Open 1.0"),
    "lfm2-vl-1.6b": ModelAlias("LiquidAI/LFM2-VL-1.6B", "lfm2_vl", "LFM2-VL, 1.6B", "LFM Open 1.0"),
    "pixtral": ModelAlias("mistral-community/pixtral-12b", "llava", "Pixtral, 12B", "Apache-2.0"),
    "mistral-small": ModelAlias(
        "mistralai/Mistral-Small-3.1-24B-Instruct-2503", "mistral3", "Mistral Small 3.1, 24B", "Apache-2.0"
    ),
    "ministral3": ModelAlias(
        "mistralai/Ministral-3-3B-Instruct-2512-BF16", "mistral3", "Ministral 3, 3B", "Apache-2.0"
    ),
}
"""Every alias, in the order `edgevlm models` lists them."""


def checkpoint_path() -> Path:
    """The folder of the checkpoint that ships, `inspector`, loadable by ``transformers`` alone."""
    return Path(__file__).parents[1] / "inspector" / "checkpoint"


def model_sizes() -> dict[str, ModelSize]:
    """By alias: computed from the shapes of the published weights (tools/model_sizes.py)."""
    made = json.loads(Path(__file__).with_name("sizes.json").read_text(encoding="utf-8"))
    return {
        alias: ModelSize(entry.pop("parameters"), {name: Size(**size) for name, size in entry.items()})
        for alias, entry in made.items()
    }
