"""A prompt by way of a graph of its own: the cache and the answer are the decoder's, whatever happens midway."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgevlm_runtime
from edgevlm_runtime import VLM
from edgevlm_runtime.decoding.context import Context
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.contexts import PICTURES, Part, embeddings_of, new_context, prefill, prompt_of
from tests.support.seal import write_manifest

onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module", params=["linear", "mrope"])
def filled(request: pytest.FixtureRequest, handmade_bundle: Path, mrope_bundle: Path, tmp_path_factory) -> VLM:
    """The same model with a graph for prompts: what the decoder's has before its head."""
    source = handmade_bundle if request.param == "linear" else mrope_bundle
    folder = Path(shutil.copytree(source, tmp_path_factory.mktemp("prefill") / "bundle"))
    whole = onnx.load(folder / "decoder.onnx").graph
    inputs = [one.name for one in whole.input if one.name != "logits_rows"]
    outputs = [one.name for one in whole.output if one.name != "logits"]
    onnx.utils.extract_model(folder / "decoder.onnx", folder / "prefill.onnx", inputs, outputs)
    manifest = folder / "manifest.json"
    data = json.loads(manifest.read_text())
    data["graphs"]["prefill"] = {**data["graphs"]["decoder"], "file": "prefill.onnx"}
    content = (folder / "prefill.onnx").read_bytes()
    data["files"]["prefill.onnx"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    write_manifest(folder, data)
    model = edgevlm_runtime.load(folder, threads=1)
    assert model.pipeline.decoder.prefill_graph is not None
    return model


LONG: list[Part] = [1, "x", 2, 3, "y", *range(4, 16), *range(4, 16)]
"""Enough positions for a graph of their own."""


def _counted(context: Context) -> list[int]:
    """Positions of each call of the graph for prompts, as they come."""
    seen: list[int] = []
    fill = context._run.prefill

    def counted(embeddings: np.ndarray, *more: Any) -> None:
        seen.append(len(embeddings))
        fill(embeddings, *more)

    context._run.prefill = counted  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize("parts", [LONG, [*LONG, "z"], ["z"] * 8], ids=["text", "image at the end", "images alone"])
@pytest.mark.parametrize("chunk", [3, 7, 1024])
def test_a_graph_for_prompts_changes_nothing(filled: VLM, parts: list[Part], chunk: int) -> None:
    """Against the decoder alone; an image's last row, too, is left to the decoder for its logits."""
    alone = edgevlm_runtime.load(filled.bundle.path, threads=1)
    alone.pipeline.decoder.prefill_graph = None
    prompt, context = prompt_of(parts), new_context(filled, chunk)
    seen = _counted(context)
    wanted = new_context(alone)
    np.testing.assert_allclose(prefill(context, prompt), prefill(wanted, prompt), atol=2e-5)
    assert sum(seen) == len(prompt) - 1
    np.testing.assert_allclose(context.step(1), wanted.step(1), atol=2e-5)


def test_cancelled_prefill_graph_leaves_a_true_prefix(filled: VLM) -> None:
    prompt, context = prompt_of(LONG), new_context(filled, 4)
    seen = _counted(context)
    answers = iter([False, False, True])
    assert context.prefill(prompt, embeddings_of(prompt), lambda: next(answers)) is None
    assert len(seen) == 2
    assert context.length == context.shared_prefix(prompt) == sum(seen)
    np.testing.assert_allclose(prefill(context, prompt), prefill(new_context(filled), prompt), atol=2e-5)


def test_failed_prefill_graph_leaves_a_true_prefix(filled: VLM) -> None:
    """The second image cannot be had; the cache ends within what came before it."""
    prompt, context = prompt_of(LONG), new_context(filled, 4)
    seen = _counted(context)

    def gone(number: int) -> np.ndarray:
        if number == 1:
            raise EdgeVLMError("no such image")
        return PICTURES[prompt.image_keys[number]]

    with pytest.raises(EdgeVLMError, match="no such image"):
        context.prefill(prompt, gone)
    assert 0 < context.length == context.shared_prefix(prompt) == sum(seen) < prompt.image_stop(1)
    np.testing.assert_allclose(prefill(context, prompt), prefill(new_context(filled), prompt), atol=2e-5)


def test_a_run_that_fails_in_the_prefill_graph_counts_nothing(filled: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt, context = prompt_of(LONG), new_context(filled, 4)
    seen, runs = _counted(context), iter([True, True])

    def run(binding: object, run: Callable[[], None] = context._run._prefill.run) -> None:
        if next(runs, False):
            return run()
        raise EdgeVLMError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(type(context._run._prefill), "run", run)
        with pytest.raises(EdgeVLMError, match="out of memory"):
            context.prefill(prompt, embeddings_of(prompt))
    assert len(seen) == 3
    assert context.length == context.shared_prefix(prompt) == sum(seen[:2])
    np.testing.assert_allclose(prefill(context, prompt), prefill(new_context(filled), prompt), atol=2e-5)


@pytest.mark.parametrize("chunk", [3, 1024])
def test_scores_are_of_what_prompts_leave(filled: VLM, chunk: int) -> None:
    """Every position but those of the last chunk is attended to as the graph for prompts left it."""
    prompt, context = prompt_of(LONG), new_context(filled, chunk)
    seen = _counted(context)
    alone = edgevlm_runtime.load(filled.bundle.path, threads=1, prefill_graph=False)
    assert alone.pipeline.decoder.prefill_graph is None
    wanted = new_context(alone).score(prompt, embeddings_of(prompt))
    np.testing.assert_allclose(context.score(prompt, embeddings_of(prompt)), wanted, atol=2e-5)
    assert sum(seen) == len(prompt) == context.length
