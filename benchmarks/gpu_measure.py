"""Latency and numerics of one way of running a model on the GPU, for `benchmarks.gpu`."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgevlm.benchmark.engines.base import Sample
from edgevlm.benchmark.engines.edgevlm import BundleEngine
from edgevlm.benchmark.workload import Task, Workload
from edgevlm_runtime import load
from edgevlm_runtime.errors import EdgeVLMError

SCORED_AT_ONCE = 64
"""Positions whose logits an engine gives in one run."""
FIGURES: dict[str, Callable[[Sample], float]] = {
    "vision_and_projector_ms": lambda one: one.vision_ms + one.projector_ms,
    "prefill_ms": lambda one: one.prefill_ms,
    "decode_ms_per_token": lambda one: one.decode_ms_per_token,
    "time_to_first_token_ms": lambda one: one.time_to_first_token_ms,
    "repeat_question_ttft_ms": lambda one: one.repeat_question_ttft_ms,
}
"""What is reported: name to its value in one round. PyTorch's vision encoder and projector are timed as one."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way of running one bundle."""

    name: str
    target: str
    options: dict[str, Any]
    """Of `edgevlm_runtime.load`."""
    compiled: bool = False


CANDIDATES = (
    Candidate("CUDA provider, standard operators", "tensorrt-rtx", {"provider": "cuda"}),
    Candidate("CUDA provider, onnxruntime's operators", "onnx", {"provider": "cuda"}),
    Candidate("TensorRT-RTX", "tensorrt-rtx", {"engine": "tensorrt-rtx"}, compiled=True),
    Candidate(
        "TensorRT-RTX, CUDA graph", "tensorrt-rtx", {"engine": "tensorrt-rtx", "cuda_graph": True}, compiled=True
    ),
)


def run(candidate: Candidate, bundle: Path, task: Task, workload: Workload, expected: Any) -> dict[str, Any]:
    """Latency and numerics of one candidate; `expected`: logits [S, vocab]. Raises `EdgeVLMError` for what does not
    work."""
    timed_ = timed(
        lambda: BundleEngine(load(bundle, image_cache_bytes=0, threads=task.threads, **candidate.options)),
        task,
        workload,
    )
    vlm = load(bundle, prefill_chunk=SCORED_AT_ONCE, **candidate.options)
    _, got = vlm.prompt_logits(messages(task), [task.image])
    return {**timed_, "numerics": numerics(got, expected), "engine": vlm.engine.identity}


def timed(make: Callable[[], Any], task: Task, workload: Workload) -> dict[str, Any]:
    """Medians over the rounds after the warm-up; every figure ends with the answer in host memory."""
    engine = make()
    samples: list[Sample] = []
    try:
        for number in range(workload.warmup + workload.repeats):
            sample, tokens = engine.ask(task)
            if number >= workload.warmup:
                samples.append(sample)
    finally:
        del engine
        free_memory()
    medians = {name: statistics.median(map(figure, samples)) for name, figure in FIGURES.items()}
    return {"medians": medians, "rounds": [asdict(sample) for sample in samples], "tokens": list(tokens)}


def free_memory() -> None:
    """What the last model left on the GPU goes, so that the next one finds it empty."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def numerics(got: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> dict[str, float]:
    """Logits [S, vocab] beside PyTorch's in float32: mean KL divergence, share of same top tokens, largest gap."""
    p, q = _log_softmax(expected), _log_softmax(got)
    return {
        "kl_mean": float((np.exp(p) * (p - q)).sum(axis=-1).mean()),
        "top1_agreement": float((got.argmax(axis=-1) == expected.argmax(axis=-1)).mean()),
        "max_abs": float(np.abs(got - expected).max()),
    }


def _log_softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: np.ndarray[Any, Any] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def reference_logits(source: str, task: Task) -> np.ndarray[Any, Any]:
    """transformers' own, float32, on the processor."""
    from edgevlm_export.reference import Reference

    _, logits = Reference.load(source, "float32").prompt_logits(messages(task), [task.image])
    return np.asarray(logits)


def messages(task: Task) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": task.first}]}]


def attempt(work: Callable[[], Any]) -> dict[str, Any]:
    """What `work` gives, or why not: on a GPU nobody has tried, a failure is a finding."""
    try:
        made = work()
    except EdgeVLMError as error:
        return {"error": str(error)}
    except Exception as error:  # noqa: BLE001 (libraries fail in their own ways here; the next candidate still runs)
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return made if isinstance(made, dict) else {"done": made}
