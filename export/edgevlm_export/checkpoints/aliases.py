"""Short names for checkpoints people use. An alias is only a name: the family is read off the checkpoint's config."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ModelAlias:
    """A checkpoint on the Hugging Face hub, or the one that ships with edgevlm (`repo_id` None)."""

    repo_id: str | None
    family: str
    note: str


ALIASES: dict[str, ModelAlias] = {
    "inspector": ModelAlias(None, "llava", "shipped with edgevlm: inspects machined parts, works offline"),
    "llava": ModelAlias("llava-hf/llava-1.5-7b-hf", "llava", "LLaVA 1.5, 7B, Vicuna decoder"),
    "llava-13b": ModelAlias("llava-hf/llava-1.5-13b-hf", "llava", "LLaVA 1.5, 13B, Vicuna decoder"),
    "llava-llama3": ModelAlias("xtuner/llava-llama-3-8b-v1_1-transformers", "llava", "LLaVA, 8B, Llama 3 decoder"),
    "llava-phi3": ModelAlias("xtuner/llava-phi-3-mini-hf", "llava", "LLaVA, 3.8B, Phi-3 mini decoder"),
    "llava-interleave": ModelAlias(
        "llava-hf/llava-interleave-qwen-0.5b-hf", "llava", "LLaVA interleave, Qwen1.5 0.5B, SigLIP"
    ),
    "smolvlm": ModelAlias("HuggingFaceTB/SmolVLM2-2.2B-Instruct", "smolvlm", "SmolVLM2, 2.2B"),
    "smolvlm-256m": ModelAlias("HuggingFaceTB/SmolVLM2-256M-Video-Instruct", "smolvlm", "SmolVLM2, 256M"),
    "smolvlm-500m": ModelAlias("HuggingFaceTB/SmolVLM2-500M-Video-Instruct", "smolvlm", "SmolVLM2, 500M"),
    "smolvlm1": ModelAlias("HuggingFaceTB/SmolVLM-Instruct", "idefics3", "SmolVLM, the first, 2.2B"),
    "smolvlm1-256m": ModelAlias("HuggingFaceTB/SmolVLM-256M-Instruct", "idefics3", "SmolVLM, the first, 256M"),
    "smolvlm1-500m": ModelAlias("HuggingFaceTB/SmolVLM-500M-Instruct", "idefics3", "SmolVLM, the first, 500M"),
    "qwen2-vl": ModelAlias("Qwen/Qwen2-VL-2B-Instruct", "qwen2_vl", "Qwen2-VL, 2B"),
    "qwen2-vl-7b": ModelAlias("Qwen/Qwen2-VL-7B-Instruct", "qwen2_vl", "Qwen2-VL, 7B"),
    "qwen2.5-vl": ModelAlias("Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl", "Qwen2.5-VL, 3B"),
    "qwen2.5-vl-7b": ModelAlias("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", "Qwen2.5-VL, 7B"),
    "qwen3-vl": ModelAlias("Qwen/Qwen3-VL-2B-Instruct", "qwen3_vl", "Qwen3-VL, 2B"),
    "qwen3-vl-4b": ModelAlias("Qwen/Qwen3-VL-4B-Instruct", "qwen3_vl", "Qwen3-VL, 4B"),
    "qwen3-vl-8b": ModelAlias("Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl", "Qwen3-VL, 8B"),
    "qwen3.5": ModelAlias("Qwen/Qwen3.5-2B", "qwen3_5", "Qwen3.5, 2B (Apache 2.0)"),
    "qwen3.5-0.8b": ModelAlias("Qwen/Qwen3.5-0.8B", "qwen3_5", "Qwen3.5, 0.8B (Apache 2.0)"),
    "qwen3.5-4b": ModelAlias("Qwen/Qwen3.5-4B", "qwen3_5", "Qwen3.5, 4B (Apache 2.0)"),
    "qwen3.5-9b": ModelAlias("Qwen/Qwen3.5-9B", "qwen3_5", "Qwen3.5, 9B (Apache 2.0)"),
    "gemma3": ModelAlias("google/gemma-3-4b-it", "gemma3", "Gemma 3, 4B (Gemma terms of use)"),
    "gemma3-12b": ModelAlias("google/gemma-3-12b-it", "gemma3", "Gemma 3, 12B (Gemma terms of use)"),
    "paligemma": ModelAlias("google/paligemma-3b-mix-224", "paligemma", "PaliGemma, 3B (Gemma terms of use)"),
    "paligemma2": ModelAlias("google/paligemma2-3b-mix-224", "paligemma", "PaliGemma 2, 3B (Gemma terms of use)"),
    "paligemma2-448": ModelAlias(
        "google/paligemma2-3b-mix-448", "paligemma", "PaliGemma 2, 3B, larger images (Gemma terms of use)"
    ),
    "lfm2-vl": ModelAlias("LiquidAI/LFM2-VL-450M", "lfm2_vl", "LFM2-VL, 450M (LFM Open License)"),
    "lfm2-vl-1.6b": ModelAlias("LiquidAI/LFM2-VL-1.6B", "lfm2_vl", "LFM2-VL, 1.6B (LFM Open License)"),
}
"""Every alias, in the order `edgevlm models` lists them."""


def checkpoint_path() -> Path:
    """The folder of the checkpoint that ships, `inspector`, loadable by ``transformers`` alone."""
    return Path(__file__).parents[1] / "inspector" / "checkpoint"
