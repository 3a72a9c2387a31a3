"""The PyTorch model the bundle was made from: transformers' own modules, eager, with its KV cache.

Decoding is the bare forward loop, which is faster than `generate()` and gives the same tokens. Vision encoder and
projector are timed where the model's own forward calls them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from edgevlm.benchmark.engines.base import Engine, Sample, Spec
from edgevlm.benchmark.workload import Task

if TYPE_CHECKING:
    import torch

    from edgevlm_export.reference import Reference

DEFAULT_DTYPE = "float32"


def imports(task: Task) -> str:
    """See `edgevlm.benchmark.engines.base`."""
    return "torch, transformers, edgevlm_export.reference"


def load(spec: Spec, task: Task) -> Engine:
    """Load a checkpoint to compute in `spec.dtype`. Raises what `Reference.load` raises."""
    import torch

    from edgevlm_export.reference import Reference

    torch.set_num_threads(task.threads)
    return PyTorchEngine(Reference.load(spec.source, spec.dtype or DEFAULT_DTYPE))


class PyTorchEngine:
    """See `Engine`."""

    def __init__(self, reference: Reference) -> None:
        from edgevlm_export.families import get_family
        from edgevlm_export.reference import weight_bytes

        model = reference.model
        defaults = reference.defaults
        self.precision = str(model.dtype).removeprefix("torch.")
        self.model_bytes = weight_bytes(reference.folder, model.dtype)
        self._reference = reference
        self._never = [*defaults.suppress_tokens, *defaults.eos_token_ids]
        self._images = Stopwatch()
        self._projector = Stopwatch()
        model.model.get_image_features = self._images.around(model.model.get_image_features)
        projector = model.get_submodule(get_family(model.config.model_type).projector_module)
        projector.forward = self._projector.around(projector.forward)

    def ask(self, task: Task) -> tuple[Sample, tuple[int, ...]]:
        """See `Engine.ask`. Nothing is remembered of the image: the second question computes it again."""
        first, tokens = self._answer(task.first, task.image, task.new_tokens)
        second, _ = self._answer(task.second, task.image, 1)
        return Sample(**first, repeat_question_ttft_ms=second["time_to_first_token_ms"]), tokens

    def _answer(self, question: str, image: str, new_tokens: int) -> tuple[dict[str, Any], tuple[int, ...]]:
        import torch

        with torch.inference_mode():
            start = time.perf_counter()
            inputs = self._inputs(question, image)
            prepared = time.perf_counter()
            out = self._reference.model(**inputs, use_cache=True, logits_to_keep=1)
            forward = time.perf_counter()
            tokens = [self._pick(out.logits)]
            first = time.perf_counter()
            for _ in range(new_tokens - 1):
                token = torch.tensor([tokens[-1:]])
                past = out.past_key_values
                out = self._reference.model(input_ids=token, past_key_values=past, use_cache=True, logits_to_keep=1)
                tokens.append(self._pick(out.logits))
            end = time.perf_counter()
        seen, projected = self._images.take(), self._projector.take()
        spent = {
            "preprocess_ms": (prepared - start) * 1e3,
            "vision_ms": seen - projected,
            "projector_ms": projected,
            "prefill_ms": (forward - prepared) * 1e3 - seen,
            "prefill_tokens": inputs["input_ids"].shape[1],
            "decode_ms_per_token": (end - first) * 1e3 / max(new_tokens - 1, 1),
            "time_to_first_token_ms": (first - start) * 1e3,
            "total_ms": (end - start) * 1e3,
        }
        return spent, tuple(tokens)

    def _inputs(self, question: str, image: str) -> dict[str, torch.Tensor]:
        kind = self._reference.model.dtype
        inputs = self._reference.inputs(question, [image])
        return {name: value.to(kind) if value.is_floating_point() else value for name, value in inputs.items()}

    def _pick(self, logits: torch.Tensor) -> int:
        return likeliest(logits, self._never)


def likeliest(logits: torch.Tensor, never: list[int]) -> int:
    """The greedy token of the last of `logits` [1, S, vocab], without those that would end the answer (`never`)."""
    last = logits[0, -1].float()
    last[never] = float("-inf")
    return int(last.argmax())


class Stopwatch:
    """Adds up the time spent in what it is put around."""

    def __init__(self) -> None:
        self._spent_ms = 0.0

    def around(self, function: Any) -> Any:
        """`function`, timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self._spent_ms += (time.perf_counter() - start) * 1e3

        return timed

    def take(self) -> float:
        """Milliseconds since the last call."""
        spent, self._spent_ms = self._spent_ms, 0.0
        return spent
