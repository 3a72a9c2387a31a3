"""The reference layer by layer: what it says is what the whole model says, with one decoder layer in memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import nullcontext
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from edgevlm_export.api import ExportOptions, export
from edgevlm_export.checkpoints.weights.shards import StoredTensor
from edgevlm_export.proof.certificate import certify, inputs
from edgevlm_export.reference import (
    Forced,
    Reference,
    ReferenceTooLarge,
    StreamedReference,
    choice,
    memory,
    open_reference,
)
from edgevlm_export.reference.memory import streamed_bytes, whole_bytes
from edgevlm_export.streaming.in_step import in_step
from edgevlm_runtime.bundle.certificate import Certificate, read_certificate
from edgevlm_runtime.bundle.folder import Bundle
from tests.support import checkpoints

MAKERS: dict[str, Callable[[Path], Path]] = {
    "llava": checkpoints.llava,
    "llava-siglip-tied": lambda folder: checkpoints.llava(folder, decoder="qwen2-tied", tower="siglip"),
    "smolvlm": checkpoints.smolvlm,
    "qwen2_5_vl": checkpoints.qwen2_5_vl,
}
LIMIT = 12


def noise(seed: int, height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module", params=MAKERS, ids=str)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = MAKERS[request.param](tmp_path_factory.mktemp("streamed") / request.param)
    config = json.loads((folder / "generation_config.json").read_text())
    changes = {"repetition_penalty": 1.3, "suppress_tokens": [60, 61]}
    (folder / "generation_config.json").write_text(json.dumps({**config, **changes}))
    return folder


def prompts(reference: Reference) -> list[Forced]:
    """Its own answers behind two pictures, one, and none; and one answer that is not its own."""
    found = []
    for seed, pictures in enumerate(((noise(1, 50, 70), noise(2, 33, 120)), (noise(3, 64, 40),), ())):
        answer = reference.answer("what is in the picture", pictures, max_new_tokens=LIMIT + seed).token_ids
        text = tuple(takewhile(lambda token: token != reference.model.config.image_token_id, answer))
        found.append(Forced("what is in the picture", pictures, text))
    changed = (*found[1].answer[:4], 100 + (found[1].answer[4] + 1) % 100, *found[1].answer[5:])
    return [*found, Forced(found[1].question, found[1].images, changed)]


def test_it_says_what_the_whole_model_says(checkpoint: Path) -> None:
    whole, layered = Reference.load(str(checkpoint)), StreamedReference.load(str(checkpoint))
    asked = prompts(whole)
    present: list[int] = []
    for layer in layered.streamed.layers:
        layer.register_forward_hook(lambda *_: present.append(_in_memory(layered.streamed.layers)))
    found = list(layered.read(asked, LIMIT))
    assert set(present) == {1}, "one layer at a time"
    assert len(present) == len(layered.streamed.layers) * len(asked)
    assert _in_memory([layered.model]) == 0, "nothing stays"
    for prompt, theirs, ours in zip(asked, whole.read(asked, LIMIT), found, strict=True):
        assert np.array_equal(ours.token_ids, theirs.token_ids)
        assert np.array_equal(ours.rows, theirs.rows)
        np.testing.assert_allclose(ours.logits, theirs.logits, rtol=0, atol=1e-5)
        if prompt is asked[-1]:
            assert ours.own == theirs.own[:5], "up to the first token that was not its own"
            assert not ours.whole
        else:
            assert ours.own == theirs.own[: len(ours.own)]
            assert len(ours.own) == min(len(theirs.own), len(prompt.answer) + 1)
    for picture in (noise(4, 90, 60), noise(5, 28, 28)):
        for one, other in zip(layered.encode_image(picture), whole.encode_image(picture), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def _in_memory(modules: object) -> int:
    """How many have weights in memory; a row of nothing, seen as often as a table has rows, is none."""
    return sum(any(not p.is_meta and p.isfinite().all() for p in module.parameters()) for module in modules)  # type: ignore[attr-defined]


@pytest.fixture
def few_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "IMAGES", {name: inputs.IMAGES[name] for name in ("wide", "noise")})
    monkeypatch.setattr(inputs, "TEXTS", inputs.TEXTS[:1])


@pytest.mark.usefixtures("few_inputs")
@pytest.mark.parametrize("family", ["llava", "smolvlm", "qwen2_5_vl"])
def test_the_certificate_is_the_same(family: str, tmp_path: Path, export_bundle: Callable[..., Path]) -> None:
    """Of a bundle of another model, whose figures are far from perfect."""
    make = getattr(checkpoints, family)
    bundle = Bundle.open(export_bundle(make(tmp_path / "exported")))
    other = str(make(tmp_path / family, seed=1))
    whole, layered = certify(bundle, Reference.load(other)), certify(bundle, StreamedReference.load(other))
    assert layered.reference == f"{whole.reference}, layer by layer"
    assert whole.decoder is not None
    assert whole.decoder.kl_mean > 0.1
    assert _numbers(layered) == pytest.approx(_numbers(whole), rel=1e-4, abs=1e-6)
    assert [one.first_divergence for one in layered.greedy] == [one.first_divergence for one in whole.greedy]
    assert {one.first_divergence for one in whole.greedy} != {None}


def _numbers(certificate: Certificate) -> list[float]:
    images = [value for one in certificate.images.values() for value in (one.vision_cosine, one.embeddings_cosine)]
    decoders = [
        (one.kl_mean, one.kl_p99, one.top1_agreement) for one in (certificate.decoder, certificate.decoder_text) if one
    ]
    assert certificate.sensitivity is not None
    return [*(value for value in images if value is not None), *sum(decoders, ()), certificate.sensitivity.least_ratio]


@pytest.mark.usefixtures("few_inputs")
def test_the_largest_module_counts_wherever_it_is(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merger larger than any layer; and a table of embeddings, of which few rows are in memory at once."""

    def stored(name: str, *shape: int) -> StoredTensor:
        return StoredTensor(Path("x"), name, "BF16", shape, 0, 2 * int(np.prod(shape)))

    layer, merger = stored("model.layers.0.mlp.weight", 1000, 1000), stored("visual.merger.mlp.0.weight", 3000, 1000)
    table = stored("model.embed_tokens.weight", 1_000_000, 1000)

    def needed(*tensors: StoredTensor) -> int:
        monkeypatch.setattr(memory, "_tensors", lambda _: list(tensors))
        return streamed_bytes(tiny_checkpoint)

    assert needed(layer, merger) - needed(layer) == (4 + 2) * 2_000_000
    assert needed(layer, table) - needed(layer) == (4 + 2) * (memory.HEAD_ROWS * 1000 - 1_000_000)
    bias = stored("visual.merger.mlp.0.bias", 1000)
    assert needed(merger, bias) - needed(merger) == 4 * 1000, "of one module all is in memory"
    norm = StoredTensor(Path("x"), "model.norm.weight", "F32", (1000,), 0, 4000)
    assert needed(merger, norm) - needed(merger) == 4 * 1000, "a type of its own is a copy from the beginning"


def test_it_is_chosen_where_memory_does_not_hold_the_model(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, least, most = (
        str(tiny_checkpoint),
        streamed_bytes(tiny_checkpoint),
        whole_bytes(tiny_checkpoint, torch.float32),
    )
    assert isinstance(open_reference(model), Reference)
    monkeypatch.setattr(choice, "whole_bytes", lambda *_: most + 2**40)
    report = export(ExportOptions(model, tmp_path / "bundle", self_test=False))
    stored = read_certificate(Bundle.open(report.bundle))
    assert stored is not None
    assert report.certificate == stored.verdict == "passed"
    assert stored.reference.endswith("float32, layer by layer")
    assert {one.first_divergence for one in stored.greedy} == {None}
    monkeypatch.setattr(choice, "available", lambda: least - 1)
    with pytest.raises(ReferenceTooLarge, match=r"even layer by layer, .* GiB are available"):
        open_reference(model)


def test_passes_go_through_each_layer_together() -> None:
    layers = [nn.Linear(2, 2) for _ in range(3)]
    order: list[tuple[int, int]] = []

    def run(number: int) -> int:
        for index, layer in enumerate(layers):
            layer(torch.zeros(2))
            order.append((index, number))
        return number

    assert in_step(layers, [lambda: run(0), lambda: run(1)], lambda _: nullcontext()) == [0, 1]
    assert order == [(layer, one) for layer in range(3) for one in range(2)]


def test_a_pass_that_fails_ends_all_of_them() -> None:
    layers = [nn.Linear(2, 2) for _ in range(3)]

    def run(width: int) -> None:
        for layer in layers:
            layer(torch.zeros(width))

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="shape"):
        in_step(layers, [lambda: run(2), lambda: run(5)], lambda _: nullcontext())
    with pytest.raises(RuntimeError, match="one by one"):
        in_step(layers, [lambda: (run(2), run(2))], lambda _: nullcontext())
    assert threading.active_count() == before
    assert layers[0](torch.zeros(2)).shape == (2,), "hooks are gone"
