"""The certificate as part of an export, and its figures."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from edgevlm_export import api
from edgevlm_export.api import ExportOptions, export
from edgevlm_export.checkpoints import checkpoint, skeleton
from edgevlm_export.checkpoints.weights import files
from edgevlm_export.precision import get_format
from edgevlm_export.precision.thresholds import EIGHT, FOUR
from edgevlm_export.proof import certificate
from edgevlm_export.proof.certificate import differences, inputs, measure, thresholds
from edgevlm_export.proof.certificate.weights import other_weights
from edgevlm_export.reference import Reference, ReferenceTooLarge, StreamedReference, choice
from edgevlm_runtime.bundle import certificate as schema
from edgevlm_runtime.bundle.certificate import Miss
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.bundle.manifest import Manifest
from edgevlm_runtime.checks.parity import GreedyParity, parity
from edgevlm_runtime.errors import BundleError, ComparisonFailed, ExportError, ParityMissed
from tests.support import checkpoints

NONE = thresholds.Thresholds(2.0, 2.0, -1.0, -1.0, -1.0, 2.0, 2.0, 2.0)
"""What nothing reaches."""


@pytest.fixture(autouse=True)
def few_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "IMAGES", {name: inputs.IMAGES[name] for name in ("wide", "noise")})
    monkeypatch.setattr(inputs, "TEXTS", inputs.TEXTS[:1])


@pytest.fixture(scope="module")
def exported(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    patch = pytest.MonkeyPatch()
    patch.setattr(inputs, "IMAGES", {name: inputs.IMAGES[name] for name in ("wide", "noise")})
    patch.setattr(inputs, "TEXTS", inputs.TEXTS[:1])
    folder = tmp_path_factory.mktemp("certified") / "bundle"
    report = export(ExportOptions(str(tiny_checkpoint), folder))
    patch.undo()
    assert report.certificate == "passed"
    return report.bundle


def test_it_is_in_the_bundle(exported: Path) -> None:
    found = schema.read_certificate(Bundle.open(exported))
    assert found is not None
    assert found.verdict == "passed"
    assert list(found.images) == ["wide", "noise"]
    assert found.decoder is not None
    assert found.decoder.top1_agreement == 1.0
    assert found.decoder.positions > 20
    assert 0 <= found.decoder.kl_mean <= found.decoder.kl_p99 < 1e-6
    assert [one.first_divergence for one in found.greedy] == [None] * 3
    assert found.reference == "LlavaForConditionalGeneration tiny-llava, float32"
    assert set(found.versions) == {"edgevlm-runtime", "onnxruntime", "torch", "transformers"}
    short = parity(found)
    assert short.greedy == GreedyParity(prompts=3, identical=3)
    assert short.vision_encoder.cosine_min is not None
    assert short.vision_encoder.cosine_min > 0.999999


def test_measuring_again_confirms_it(exported: Path, tiny_checkpoint: Path) -> None:
    bundle = Bundle.open(exported)
    stored = schema.read_certificate(bundle)
    again = certificate.certify(bundle, Reference.load(str(tiny_checkpoint)))
    assert stored is not None
    assert differences(stored, again) == []
    assert again.images == stored.images
    worse = json.loads(schema.encode(stored))
    worse["images"]["noise"]["embeddings_cosine"] = 0.9
    assert "image 'noise'" in differences(schema.decode(json.dumps(worse).encode()), again)[0]


def test_largest_errors_and_answers_are_compared(exported: Path) -> None:
    """Within the noise that docs/parity.md states, and no further."""
    stored = schema.read_certificate(Bundle.open(exported))
    assert stored is not None
    whole = json.loads(schema.encode(stored))

    def changed(change: Callable[[dict[str, Any]], None]) -> list[str]:
        other = copy.deepcopy(whole)
        change(other)
        return differences(stored, schema.decode(json.dumps(other).encode()))

    for name in ("vision_max_abs", "embeddings_max_abs"):
        assert changed(lambda one, name=name: one["images"]["noise"].update({name: 9e-4})) == []  # type: ignore[misc]
        said = changed(lambda one, name=name: one["images"]["noise"].update({name: 0.1}))  # type: ignore[misc]
        assert [name in line and "is 0.1 here" in line for line in said] == [True]
    said = changed(lambda one: one["greedy"][0].update(first_divergence=2))
    assert said == ["greedy answers: 3 of 3 were PyTorch's at export, 2 of 3 are here"]
    assert "other prompts" in changed(lambda one: one["greedy"].pop())[0]


def test_missed_thresholds_keep_the_bundle_aside(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thresholds, "EXACT", NONE)
    monkeypatch.setattr(get_format("fp32"), "thresholds", NONE)
    folder = tmp_path / "out" / "bundle"
    with pytest.raises(ParityMissed, match=r"kl_mean is .* at most -1 is needed") as caught:
        export(ExportOptions(str(tiny_checkpoint), folder))
    assert "\n" not in str(caught.value)
    assert "--allow-drift" in str(caught.value)
    assert [path.name for path in folder.parent.iterdir()] == ["bundle.drifted"]
    aside = Bundle.open(folder.parent / "bundle.drifted")
    stored = schema.read_certificate(aside)
    assert stored is not None
    assert (stored.verdict, tuple(map(str, stored.missed))) == ("missed", caught.value.missed)
    (folder.parent / "bundle.drifted" / "manifest.json").unlink()
    (folder.parent / "bundle.drifted" / "notes").write_text("not a bundle: it must not be removed")
    with pytest.raises(ParityMissed, match=r"bundle\.drifted-2"):
        export(ExportOptions(str(tiny_checkpoint), folder, self_test=False))
    assert (folder.parent / "bundle.drifted" / "notes").is_file()
    report = export(ExportOptions(str(tiny_checkpoint), folder, allow_drift="a test"))
    allowed = schema.read_certificate(Bundle.open(report.bundle))
    assert allowed is not None
    assert (report.certificate, allowed.allowed_drift) == ("drift allowed", "a test")
    assert allowed.missed


def test_a_model_too_large_for_pytorch(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: str, **_: object) -> Reference:
        raise ReferenceTooLarge("PyTorch needs about 99 GiB")

    monkeypatch.setattr(Reference, "load", refuse)
    report = export(ExportOptions(str(tiny_checkpoint), tmp_path / "bundle"))
    stored = schema.read_certificate(Bundle.open(report.bundle))
    assert stored is not None
    assert (report.certificate, stored.not_checked) == ("not checked", "PyTorch needs about 99 GiB")
    assert parity(stored).decoder is None


def test_none_is_wanted(export_bundle, tiny_checkpoint: Path) -> None:
    bundle = export_bundle(tiny_checkpoint)
    assert schema.read_certificate(Bundle.open(bundle)) is None
    assert not (bundle / "certificate.json").exists()
    assert api.ExportOptions("x").certificate


def test_a_damaged_certificate(exported: Path, tmp_path: Path) -> None:
    import shutil

    bundle = Bundle.open(shutil.copytree(exported, tmp_path / "copy"))
    bundle.file("certificate.json").write_text("{}")
    with pytest.raises(BundleError, match=r"not a certificate: .*certificate\.json"):
        schema.read_certificate(bundle)


def test_a_figure_of_all_graphs_is_judged_by_the_loosest() -> None:
    for name, wanted in (("int8w", EIGHT), ("fp8", EIGHT), ("int8b:block=64", EIGHT), ("int4", FOUR)):
        alike = dict.fromkeys(("vision_encoder", "projector", "decoder"), name)
        assert thresholds.thresholds_for(alike) == wanted
    mixed = thresholds.thresholds_for({"vision_encoder": "int8", "projector": "fp32", "decoder": "fp16"})
    assert (mixed.kl_mean, mixed.text_kl_mean, mixed.vision_cosine) == (0.05, 1e-2, 0.98)
    with pytest.raises(ExportError, match="unknown precision: int3"):
        thresholds.thresholds_for(dict.fromkeys(("vision_encoder", "projector", "decoder"), "int3"))


def test_misses_are_known_again() -> None:
    """By threshold, or by prompt; by their sentences in certificates of early exporters."""
    kl, worse = Miss("kl_mean", "decoder", 0.3, 0.05), Miss("kl_mean", "decoder", 0.9, 0.05)
    prompt, elsewhere = Miss("prompt", "'q' about 'a'", token=3), Miss("prompt", "'q' about 'b'", token=3)
    assert worse.same_thing(kl)
    assert not Miss("kl_p99", "decoder", 0.3, 0.05).same_thing(kl)
    assert Miss("prompt", "'q' about 'a'", token=5).same_thing(prompt)
    assert not elsewhere.same_thing(prompt)
    assert all(miss.same_thing(str(miss)) for miss in (kl, prompt, Miss("answer", "'q'", token=1)))
    assert not elsewhere.same_thing(str(prompt))
    stored = msgspec.json.decode(b'["decoder: kl_mean is 0.3, at most 0.05 is needed", {"what": "a", "where": "b"}]',
                                 type=tuple[Miss | str, ...])  # fmt: skip
    assert stored == (str(kl), Miss("a", "b"))


def test_divergence_is_torchs() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(0, 3, (50, 97)).astype(np.float32) for _ in range(2))
    p, q = (torch.log_softmax(torch.tensor(x).double(), -1) for x in (a, b))
    expected = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
    np.testing.assert_allclose(measure.divergence(a, b), expected.numpy(), rtol=1e-9)
    b[3, 5] = np.nan
    assert np.isinf(measure.divergence(a, b)[3])


def test_cosine_is_torchs_and_has_no_holes() -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.normal(0, 1, (20, 33)).astype(np.float32) for _ in range(2))
    expected = torch.nn.functional.cosine_similarity(torch.tensor(a).double(), torch.tensor(b).double(), dim=-1)
    assert measure.cosine(a, b) == pytest.approx(float(expected.min()), abs=1e-12)
    zero = np.zeros_like(a)
    assert (measure.cosine(a, zero), measure.cosine(zero, zero), measure.cosine(a, a[:3])) == (0.0, 1.0, 0.0)
    a[2, 2] = np.nan
    assert thresholds.judge(NONE, {"vision_cosine": measure.cosine(a, b)}, {"vision_cosine": "x"})


def test_inputs_are_the_same_everywhere() -> None:
    """Digests of the pictures: a change of one would make certificates incomparable without a word."""
    import hashlib

    from edgevlm_export.proof.certificate import inputs as module

    pictures = {name: draw() for name, draw in module.IMAGES.items()}
    assert all(isinstance(image, Image.Image) and image.mode == "RGB" for image in pictures.values())
    again = {name: draw() for name, draw in module.IMAGES.items()}
    digests = {name: hashlib.sha256(image.tobytes()).hexdigest() for name, image in pictures.items()}
    assert digests == {name: hashlib.sha256(image.tobytes()).hexdigest() for name, image in again.items()}
    assert len(set(digests.values())) == len(digests)


def copied(exported: Path, tmp_path: Path) -> tuple[Path, Manifest]:
    """A copy to measure again."""
    folder = Path(shutil.copytree(exported, tmp_path / "copy"))
    return folder, Bundle.open(folder).manifest


def source(checkpoint_: Path) -> checkpoint.WeightSource:
    return checkpoint.open_weights(checkpoint_, skeleton.build(checkpoint.load_config(checkpoint_)))


def test_weights_of_another_file_are_named(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """What the export read and what transformers loads, by each way that a reference runs; one number is enough."""
    changed = Path(shutil.copytree(tiny_checkpoint, tmp_path / "changed"))
    weights = load_file(changed / "model.safetensors")
    part = "layers.1.mlp.down_proj.weight"
    name = f"language_model.model.{part}"
    weights[name][-1, -1] += 1e-3
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    for reference in (Reference.load(str(tiny_checkpoint)), StreamedReference.load(str(tiny_checkpoint))):
        assert list(other_weights(source(tiny_checkpoint), reference)) == []
        (miss,) = other_weights(source(changed), reference)
        assert (miss.what, miss.where, miss.figure) == (
            "weights",
            "model.language_model.layers.1.mlp.down_proj.weight",
            1,
        )
        assert miss.where in str(miss)


@pytest.mark.parametrize("layered", [False, True], ids=["whole", "layer by layer"])
def test_an_export_of_the_wrong_files_is_missed(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layered: bool
) -> None:
    """An exporter that took an index for the model where transformers takes the single file beside it."""
    folder, manifest = copied(exported, tmp_path)
    both = checkpoints.llava(tmp_path / "both", seed=5)
    checkpoints.llava(tmp_path / "old", max_shard_size="60KB")  # what `exported` was made from
    for path in (*(tmp_path / "old").glob("model-*.safetensors"), tmp_path / "old" / "model.safetensors.index.json"):
        shutil.copy(path, both)
    monkeypatch.setattr(files, "ORDER", (files.INDEX, files.SINGLE))
    weights = source(both)
    assert weights.tensors["lm_head.weight"].path.name.startswith("model-")
    if layered:
        monkeypatch.setattr(choice, "whole_bytes", lambda *_: 2**60)
    _, measured = certificate.attach(folder, manifest, weights, None, lambda *_: None)
    assert measured.certificate.verdict == "missed"
    assert measured.certificate.reference.endswith("layer by layer") == layered
    assert [miss.what for miss in measured.certificate.missed][:3] == ["weights"] * 3
    assert {miss.what for miss in measured.certificate.missed} > {"weights", "kl_mean"}


class Panic(BaseException):
    """What a library in Rust ends with."""


@pytest.mark.parametrize("error", [IndexError("index out of range"), MemoryError(), ValueError("a\nb"), Panic("x")])
def test_a_reference_that_fails_loses_nothing(
    exported: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    folder, manifest = copied(exported, tmp_path)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Reference, "read", fail)
    manifest, measured = certificate.attach(folder, manifest, source(tiny_checkpoint), None, lambda *_: None)
    assert measured.failure is not None
    assert measured.failure.startswith(type(error).__name__)
    assert "\n" not in measured.failure
    assert measured.certificate.verdict == "not checked"
    assert measured.certificate.not_checked == measured.failure
    assert "certificate.json" in manifest.files


def test_its_bundle_is_kept_aside(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that fails on a picture, in a whole export."""

    def fail(*_: object, **__: object) -> None:
        raise ValueError("the processor fails")

    monkeypatch.setattr(CLIPImageProcessorPil, "preprocess", fail)
    with pytest.raises(ComparisonFailed, match="ValueError: the processor fails: the bundle is complete") as caught:
        export(ExportOptions(str(tiny_checkpoint), tmp_path / "bundle", self_test=False))
    assert caught.value.aside == tmp_path / "bundle.unchecked"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.unchecked"]
    found = schema.read_certificate(Bundle.open(caught.value.aside))
    assert found is not None
    assert found.not_checked == "ValueError: the processor fails"
