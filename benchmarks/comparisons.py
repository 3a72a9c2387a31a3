"""What is compared: models and shapes, in which precisions, beside which of PyTorch's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model in several precisions, beside PyTorch."""

    title: str
    model: str
    """Alias or folder; or, with `shape`, the name of a shape of `benchmarks.shapes`."""
    precisions: tuple[str, ...] = ("fp32", "int8", "int4")
    shape: bool = False
    """Random weights: nothing is said about answers, and parity is not checked when exporting."""
    export_options: tuple[str, ...] = ()
    reference_dtypes: tuple[str, ...] = ("float32", "bfloat16")
    """PyTorch's rows."""
    image_size: tuple[int, int] | None = None
    """Width and height; None takes the model's own."""
    large: bool = False
    """Takes long, up to 20 GB of memory and 50 GB of disk, or another processor: measured when named alone."""


UNCHECKED = ("--no-self-test", "--no-certificate", "--max-kl", "inf")
"""Random weights say nothing about answers."""
COMPARISONS: dict[str, Comparison] = {
    "inspector": Comparison("`inspector`, the model that ships (about 2 million parameters)", "inspector"),
    "clip-l-336-qwen2-0.5b": Comparison(
        "CLIP-L/336 + Qwen2-0.5B shape, random weights",
        "clip-l-336-qwen2-0.5b",
        precisions=("fp32", "int8", "int4", "int4-prefill-int8", "int4-all-block128"),
        shape=True,
        export_options=UNCHECKED,
    ),
    "smolvlm-256m": Comparison(
        "SmolVLM-256M shape, random weights, one tile of 512x512",
        "smolvlm-256m",
        shape=True,
        export_options=UNCHECKED,
    ),
    **{
        f"{shape}-{isa}": Comparison(
            f"{title} {processor}",
            shape,
            precisions=("int8", "int8-fast", "int4-nearest", "int4-widened", "int4-fast-nearest"),
            shape=True,
            export_options=UNCHECKED,
            reference_dtypes=dtypes,
            large=True,
        )
        for shape, title in (
            ("clip-l-336-qwen2-0.5b", "CLIP-L/336 + Qwen2-0.5B shape, random weights,"),
            ("smolvlm-256m", "SmolVLM-256M shape, random weights, one tile of 512x512,"),
        )
        for isa, processor, dtypes in (
            ("avx512", "on a processor without AMX", ("float32", "bfloat16")),
            ("avx2", "with AVX2 alone (`benchmarks.isa`)", ("float32",)),
        )
    },
    **{
        name: Comparison(
            f"{title} shape, random weights",
            name,
            precisions=("int8", "int4-nearest"),
            shape=True,
            export_options=UNCHECKED,
            image_size=size,
            reference_dtypes=dtypes,
            large=True,
        )
        for name, title, size, dtypes in (
            ("lfm2-vl-450m", "LFM2-VL-450M", (512, 512), ("bfloat16",)),
            ("qwen3-vl-2b", "Qwen3-VL-2B", (512, 512), ("bfloat16",)),
            ("internvl3-1b", "InternVL3-1B", (448, 448), ("bfloat16",)),
            ("fastvlm-0.5b", "FastVLM-0.5B", (1024, 1024), ("bfloat16",)),
            ("gemma3-4b", "Gemma-3-4B", (896, 896), ()),
        )
    },
    "llava-1.5-7b": Comparison(
        "LLaVA-1.5-7B shape, random weights",
        "llava-1.5-7b",
        precisions=("int8", "int4-all-nearest"),
        shape=True,
        export_options=UNCHECKED,
        reference_dtypes=(),
        large=True,
    ),
}
