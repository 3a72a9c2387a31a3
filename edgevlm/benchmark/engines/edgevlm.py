"""A bundle in the runtime, as a device runs it."""

from __future__ import annotations

from typing import Any

from edgevlm.benchmark.engines.base import Engine, Sample, Spec
from edgevlm.benchmark.workload import Task
from edgevlm_runtime import VLM, Answer
from edgevlm_runtime import load as load_bundle
from edgevlm_runtime.bundle.manifest import Manifest
from edgevlm_runtime.engines import maker
from edgevlm_runtime.engines.assigned.words import Assignment
from edgevlm_runtime.errors import EdgeVLMError


def imports(task: Task) -> str:
    """The runtime, and the modules of the engines it is asked for. Raises `ProviderError` for one it does not have."""
    modules = (maker(spec).__module__ for spec in Assignment.parse(task.engine).specs)
    return ", ".join(dict.fromkeys(("edgevlm_runtime", *modules)))


def load(spec: Spec, task: Task) -> Engine:
    """Load a bundle with its digests checked, as `edgevlm run` does, and without an image cache: rounds must not
    remember each other's image."""
    on = {"provider": task.provider, "engine": task.engine, "threads": task.threads}
    return BundleEngine(load_bundle(spec.source, image_cache_bytes=0, **on))


class BundleEngine:
    """See `Engine`."""

    def __init__(self, vlm: VLM) -> None:
        manifest = vlm.manifest
        self.precision = describe_precision(manifest)
        self.model_bytes = sum(record.bytes for record in manifest.files.values())
        self._vlm = vlm
        # What ends an answer early is suppressed: every engine generates the same number of tokens.
        self._never = (*manifest.generation.suppress_tokens, *manifest.generation.eos_token_ids)

    def ask(self, task: Task) -> tuple[Sample, tuple[int, ...]]:
        """See `Engine.ask`. The second question reuses the KV cache of the image."""
        options: dict[str, Any] = {"temperature": 0.0, "suppress_tokens": self._never, "logprobs": False}
        with self._vlm.session(task.image, system="") as session:  # the same words as every engine is given
            first = session.ask(task.first, max_new_tokens=task.new_tokens, **options)
            second = session.ask(task.second, max_new_tokens=1, **options)
        if len(first.token_ids) != task.new_tokens:
            raise EdgeVLMError(
                f"the answer ended after {len(first.token_ids)} of {task.new_tokens} tokens ({first.finish_reason}): "
                "ask for fewer new tokens"
            )
        return _sample(first, second), first.token_ids


def describe_precision(manifest: Manifest) -> str:
    """One word where all graphs are stored alike, else each graph's."""
    precisions = {name: graph.precision for name, graph in manifest.graphs.items()}
    kinds = list(dict.fromkeys(precisions.values()))
    return kinds[0] if len(kinds) == 1 else ", ".join(f"{name} {kind}" for name, kind in precisions.items())


def _sample(first: Answer, second: Answer) -> Sample:
    spent = first.timings
    return Sample(
        preprocess_ms=spent.preprocess,
        vision_ms=spent.vision,
        projector_ms=spent.projector,
        prefill_ms=spent.prefill,
        prefill_tokens=first.prompt_tokens - first.prefix_tokens_reused,
        decode_ms_per_token=spent.decode_per_token,
        time_to_first_token_ms=spent.time_to_first_token,
        total_ms=spent.total,
        repeat_question_ttft_ms=second.timings.time_to_first_token,
    )
