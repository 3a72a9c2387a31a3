"""Keys and values that come with a bundle: what they save, what they must not change, and damaged ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgevlm_runtime
from edgevlm_runtime.decoding.baked_prefix import BakedPrefix
from edgevlm_runtime.decoding.context import Context
from edgevlm_runtime.errors import BundleError, BundleIncomplete, EdgeVLMError
from edgevlm_runtime.text.layout import Prompt

BEGINNING = "<s><|system|>Be brief.<|user|>"
Rewrite = Callable[..., None]


def _layers(vlm: edgevlm_runtime.VLM, token_ids: np.ndarray) -> np.ndarray:
    """What the graph itself leaves in a cache: [layers, 2, kv_heads, P, head_dim]."""
    info = vlm.manifest.decoder
    run = vlm.pipeline.decoder.new_run(64)
    embeddings = np.empty((token_ids.size, info.hidden_size), np.float32)
    vlm.pipeline.decoder.embeddings.gather(token_ids, embeddings)
    run.forward(embeddings, np.array([0]))
    rows = [tensor.host()[0, :, : token_ids.size].copy() for tensor in run.kv.tensors]
    return np.stack(rows).reshape(info.kv.layers, 2, info.kv.kv_heads, token_ids.size, info.kv.head_dim)


def _bake(
    folder: Path, rewrite: Rewrite, layers: np.ndarray, token_ids: np.ndarray, changes: dict[str, Any] | None = None
) -> None:
    """Put a prefix and the system prompt "Be brief." into a bundle."""
    np.save(folder / "prefix.npy", layers)
    data = (folder / "prefix.npy").read_bytes()
    record = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    entry = {"file": "prefix.npy", "token_ids": token_ids.tolist(), "dtype": "float32", "shape": layers.shape}

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"]["prefix.npy"] = record
        manifest["decoder"]["prefix"] = {**entry, **(changes or {})}
        manifest["prompt"]["system_prompt"] = "Be brief."

    rewrite(folder, change)


@pytest.fixture
def token_ids(vlm: edgevlm_runtime.VLM) -> np.ndarray:
    return np.array(vlm.tokenizer.encode(BEGINNING, "<s>"))


@pytest.fixture
def baked(vlm: edgevlm_runtime.VLM, own_bundle: Path, rewrite: Rewrite, token_ids: np.ndarray) -> edgevlm_runtime.VLM:
    _bake(own_bundle, rewrite, _layers(vlm, token_ids), token_ids)
    return edgevlm_runtime.load(own_bundle, threads=1)


def test_a_fresh_session_has_the_prefix(baked: edgevlm_runtime.VLM, vlm: edgevlm_runtime.VLM, token_ids: np.ndarray):
    with baked.session() as session, vlm.session(system="Be brief.") as plain:
        answer, wanted = session.ask("Hello?", max_new_tokens=6), plain.ask("Hello?", max_new_tokens=6)
        assert (answer.token_ids, answer.prompt_tokens) == (wanted.token_ids, wanted.prompt_tokens)
        np.testing.assert_allclose(answer.logprobs, wanted.logprobs, atol=1e-4)
        assert (answer.prefix_tokens_reused, wanted.prefix_tokens_reused) == (token_ids.size, 0)
        second = session.ask("Hell or heaven?", max_new_tokens=2)
        assert second.prefix_tokens_reused == token_ids.size + len("Hell")
        assert second.token_ids == plain.ask("Hell or heaven?", max_new_tokens=2).token_ids


def test_its_values_are_what_is_attended_to(
    vlm: edgevlm_runtime.VLM, own_bundle: Path, rewrite: Rewrite, token_ids: np.ndarray
):
    """Other values in the file change the answer's probabilities: nothing recomputes them behind it."""
    _bake(own_bundle, rewrite, _layers(vlm, token_ids) + 0.5, token_ids)
    changed = edgevlm_runtime.load(own_bundle, threads=1).ask(None, "Hello?", max_new_tokens=1)
    wanted = vlm.ask(None, "Hello?", system="Be brief.", max_new_tokens=1)
    assert changed.logprobs[0] != pytest.approx(wanted.logprobs[0], abs=1e-3)


@pytest.mark.parametrize("system", ["Be long.", "", "Be"])
def test_other_system_prompts_run_as_usual(baked, vlm, token_ids, system):
    """The part that is the same is reused, the rest runs; "" leaves the system message out."""
    answer = baked.ask(None, "Hello?", system=system, max_new_tokens=4)
    wanted = vlm.ask(None, "Hello?", system=system or None, max_new_tokens=4)
    assert answer.token_ids == wanted.token_ids
    assert answer.prompt_tokens == wanted.prompt_tokens
    assert 0 < answer.prefix_tokens_reused < token_ids.size


def test_chats_and_choices_begin_with_it(baked, vlm, token_ids):
    with baked.chat() as chat, vlm.chat(system="Be brief.") as plain:
        for question in ("One?", "Two?"):
            assert chat.ask(question, max_new_tokens=3).token_ids == plain.ask(question, max_new_tokens=3).token_ids
        assert chat.messages[0]["content"] == [{"type": "text", "text": "Be brief."}]
    choice = baked.session().choose("One?", ["yes", "no"])
    wanted = vlm.session(system="Be brief.").choose("One?", ["yes", "no"])
    assert choice.prefix_tokens_reused == token_ids.size
    assert choice.scores == pytest.approx(wanted.scores, abs=1e-4)


def _context(model: edgevlm_runtime.VLM, chunk: int) -> Context:
    return Context(model.pipeline.decoder, model.pipeline.positions, 96, chunk, BakedPrefix.load(model.bundle))


def _prompt(ids: np.ndarray) -> Prompt:
    return Prompt(ids.astype(np.int64))


@pytest.mark.parametrize("chunk", [3, 1024])
def test_prompts_that_leave_it_and_come_back(baked, vlm, token_ids, chunk):
    """One cache, prompts that share all, some, nothing: each as in a fresh cache without any prefix."""
    context, plain = _context(baked, chunk), Context(vlm.pipeline.decoder, vlm.pipeline.positions, 96, 1024)
    with_it, other = np.append(token_ids, [5, 6, 7]), np.array([9, 8, 7, 6])
    half = np.append(token_ids[:6], [1, 2])
    for ids, reused in (
        (with_it, token_ids.size),
        (other, 0),
        (half, 6),
        (token_ids, token_ids.size - 1),
        (with_it, 0),
    ):
        prompt = _prompt(ids)
        assert context.shared_prefix(prompt) >= reused
        found, wanted = context.prefill(prompt, lambda _: None), plain.prefill(prompt, lambda _: None)
        np.testing.assert_allclose(found, wanted, atol=2e-5)
        np.testing.assert_allclose(context.step(3), plain.step(3), atol=2e-5)


def test_scores_are_those_of_an_answer(vlm, own_bundle, rewrite, token_ids):
    """Every position is scored, those within the prefix too; those behind it attend to the file's values."""
    _bake(own_bundle, rewrite, _layers(vlm, token_ids) + 0.5, token_ids)
    model = edgevlm_runtime.load(own_bundle, threads=1)
    prompt = _prompt(np.append(token_ids, [5, 6, 7]))
    scores = _context(model, 4).score(prompt, lambda _: None)
    plain = Context(vlm.pipeline.decoder, vlm.pipeline.positions, 96, 1024).score(prompt, lambda _: None)
    np.testing.assert_allclose(scores[: token_ids.size], plain[: token_ids.size], atol=2e-5)
    assert np.abs(scores[token_ids.size :] - plain[token_ids.size :]).max() > 1e-3
    np.testing.assert_allclose(_context(model, 4).prefill(prompt, lambda _: None), scores[-1], atol=2e-5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shape": [2, 2, 1, 1, 16]}, "decoder.prefix.shape"),
        ({"dtype": "float16"}, "decoder.prefix.dtype"),
        ({"token_ids": [9999] * 5}, "decoder.prefix.token_ids"),
        ({"token_ids": []}, "decoder.prefix.token_ids"),
        ({"file": "absent.npy"}, "no digest for 'absent.npy'"),
    ],
)
def test_bad_manifests(vlm, own_bundle, rewrite, token_ids, change, says):
    _bake(own_bundle, rewrite, _layers(vlm, token_ids), token_ids, change)
    with pytest.raises(BundleError, match=says) as error:
        edgevlm_runtime.load(own_bundle)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda layers: layers[:, :, :, :3], "is float32 .*, not float32"),
        (lambda layers: layers.astype(np.float64), "is float64"),
        (lambda layers: np.array([{"a": 1}], dtype=object), "cannot read the prompt's prefix"),
    ],
)
def test_files_that_hold_something_else(vlm, own_bundle, rewrite, token_ids, made, says):
    layers = _layers(vlm, token_ids)
    _bake(own_bundle, rewrite, made(layers), token_ids, {"shape": layers.shape})
    with pytest.raises(BundleError, match=says) as error:
        edgevlm_runtime.load(own_bundle)
    assert "\n" not in str(error.value)


def test_damaged_file(baked, own_bundle):
    file = own_bundle / "prefix.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match="is not the file the exporter wrote"):
        edgevlm_runtime.load(own_bundle)
    file.unlink()
    with pytest.raises(BundleIncomplete, match="missing file"):
        edgevlm_runtime.load(own_bundle, verify="size")


def test_a_cache_too_short_for_it(baked, token_ids):
    """The prompt does not fit either: the same line as ever."""
    small = edgevlm_runtime.load(baked.bundle.path, threads=1, max_context=int(token_ids.size) - 2)
    with pytest.raises(EdgeVLMError, match="the context holds"):
        small.ask(None, "Hello?")


def test_manifest_without_a_prefix_is_as_before(handmade_bundle):
    manifest = json.loads((handmade_bundle / "manifest.json").read_text())
    assert manifest["decoder"]["prefix"] is None
    for name in ("prefix", "step_inputs"):
        manifest["decoder"].pop(name, None)
    decoded = edgevlm_runtime.bundle.manifest.decode(json.dumps(manifest).encode(), "manifest")
    assert decoded.decoder.prefix is None
