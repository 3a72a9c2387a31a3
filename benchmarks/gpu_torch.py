"""PyTorch on the GPU, measured like the engines: every figure is taken after the device has finished."""

from __future__ import annotations

import time
import weakref
from typing import Any

import torch

from edgevlm.benchmark.engines.base import Sample, Spec
from edgevlm.benchmark.engines.pytorch import likeliest
from edgevlm.benchmark.workload import Task
from edgevlm_export.reference import Reference

DEVICE = "cuda"


class _Watch:
    """A model's `get_image_features` with a clock: vision encoder and projector together.

    It stands in the model, so it holds the model weakly: a cycle would keep the weights on the GPU.
    """

    def __init__(self, model: Any) -> None:
        self._model = weakref.ref(model)
        self.seen_ms = 0.0

    def __call__(self, *given: Any, **named: Any) -> Any:
        """As the method."""
        model = self._model()
        start = _now()
        result = type(model).get_image_features(model, *given, **named)
        self.seen_ms += (_now() - start) * 1e3
        return result


class TorchOnGpu:
    """transformers' model on the first GPU; decoding is the bare forward loop with its KV cache."""

    def __init__(self, spec: Spec, task: Task) -> None:
        self._reference = Reference.load(spec.source, spec.dtype or "float32")
        self._model = self._reference.model.to(DEVICE)
        defaults = self._reference.defaults
        self._never = [*defaults.suppress_tokens, *defaults.eos_token_ids]
        self._watch = _Watch(self._model.model)
        self._model.model.get_image_features = self._watch

    def ask(self, task: Task) -> tuple[Sample, tuple[int, ...]]:
        """Both questions; nothing is remembered of the image."""
        first, tokens = self._answer(task.first, task.image, task.new_tokens)
        second, _ = self._answer(task.second, task.image, 1)
        return Sample(**first, repeat_question_ttft_ms=second["time_to_first_token_ms"]), tokens

    @torch.inference_mode()
    def _answer(self, question: str, image: str, new_tokens: int) -> tuple[dict[str, Any], tuple[int, ...]]:
        self._watch.seen_ms = 0.0
        start = _now()
        inputs = self._inputs(question, image)
        prepared = _now()
        out = self._model(**inputs, use_cache=True, logits_to_keep=1)
        tokens = [self._pick(out.logits)]
        first = _now()
        for _ in range(new_tokens - 1):
            token = torch.tensor([tokens[-1:]], device=DEVICE)
            out = self._model(input_ids=token, past_key_values=out.past_key_values, use_cache=True, logits_to_keep=1)
            tokens.append(self._pick(out.logits))
        end = _now()
        spent = {
            "preprocess_ms": (prepared - start) * 1e3,
            "vision_ms": self._watch.seen_ms,
            "projector_ms": 0.0,
            "prefill_ms": (first - prepared) * 1e3 - self._watch.seen_ms,
            "prefill_tokens": inputs["input_ids"].shape[1],
            "decode_ms_per_token": (end - first) * 1e3 / max(new_tokens - 1, 1),
            "time_to_first_token_ms": (first - start) * 1e3,
            "total_ms": (end - start) * 1e3,
        }
        return spent, tuple(tokens)

    def _inputs(self, question: str, image: str) -> dict[str, torch.Tensor]:
        kind = self._model.dtype
        inputs = {name: value.to(DEVICE) for name, value in self._reference.inputs(question, [image]).items()}
        return {name: value.to(kind) if value.is_floating_point() else value for name, value in inputs.items()}

    def _pick(self, logits: torch.Tensor) -> int:
        return likeliest(logits, self._never)


def _now() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()
