"""Injected faults, each with the check that must catch it and the part that must be named (table in docs/parity.md).

A fault is put into a finished bundle and signed again, as an exporter with that error would have: digests hold. The
self-test of the sound export must then fail; and when the self-test was recorded with the fault in place, the
certificate, measured against PyTorch, must miss a threshold.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgevlm_export.proof import selftest
from edgevlm_export.proof.certificate import certify, inputs
from edgevlm_export.reference import Reference
from edgevlm_export.writing.bundle import file_records, write_manifest
from edgevlm_export.writing.output import seal
from edgevlm_runtime.bundle import manifest as schema
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.checks.verification import check_files, check_self_test
from tests.support import checkpoints

Fault = Callable[[Path, Path], None]
"""Damages the bundle in the first folder; the second holds a sound bundle of another model of the same shape."""


def swap_vision_encoder(bundle: Path, other: Path) -> None:
    for name in ("vision_encoder.onnx", "vision_encoder.onnx.data"):
        shutil.copyfile(other / name, bundle / name)


def swap_decoder(bundle: Path, other: Path) -> None:
    for name in ("decoder.onnx", "decoder.onnx.data"):
        shutil.copyfile(other / name, bundle / name)


def swap_embedding_table(bundle: Path, other: Path) -> None:
    shutil.copyfile(other / "embeddings.data", bundle / "embeddings.data")


def wrong_mean(bundle: Path, _: Path) -> None:
    edit_constant(bundle, "normalize.mean", lambda mean: mean[::-1].copy() + np.float32(0.05))


def wrong_deviation(bundle: Path, _: Path) -> None:
    edit_constant(bundle, "normalize.std", lambda std: std * np.float32(2))


def zero_projector(bundle: Path, _: Path) -> None:
    data = bundle / "projector.onnx.data"
    data.write_bytes(bytes(data.stat().st_size))


def blind_vision_encoder(bundle: Path, _: Path) -> None:
    """The features of every image are those of none: plausible values, always the same."""
    model = load(bundle)
    (output,) = model.graph.output
    (last,) = [node for node in model.graph.node if output.name in node.output]
    last.output[list(last.output).index(output.name)] = "seen"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "nothing"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.3), "something"))
    model.graph.node.append(helper.make_node("Mul", ["seen", "nothing"], ["dark"]))
    model.graph.node.append(helper.make_node("Add", ["dark", "something"], [output.name]))
    onnx.save(model, bundle / "vision_encoder.onnx")


def permute_vocabulary(bundle: Path, _: Path) -> None:
    """Plain tokens change places; special tokens stay."""
    path = bundle / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    special = {token["id"] for token in content["added_tokens"]}
    plain = [token for token, number in vocabulary.items() if number not in special]
    numbers = [vocabulary[token] for token in plain]
    vocabulary |= dict(zip(plain, numbers[7:] + numbers[:7], strict=True))
    path.write_text(json.dumps(content), encoding="utf-8")


def other_resize(bundle: Path, _: Path) -> None:
    """Nearest-neighbour instead of the processor's filter: a preprocessing difference that nobody sees."""
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    manifest["image"]["options"]["resample"] = 0
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def other_template(bundle: Path, _: Path) -> None:
    path = bundle / "chat_template.jinja"
    path.write_text(path.read_text(encoding="utf-8").replace("ASSISTANT:", "ANSWER:"), encoding="utf-8")


VISION, DECODER = "vision encoder, projector or image preprocessing", "decoder, tokenizer or prompt"
TOKENS = "tokenizer, chat template or number of image tokens: "
NAMED = {
    # what the certificate's lines say about a fault, where a figure alone would not tell
    "wrong image mean": "image preprocessing or vision encoder, image ",
    "wrong image deviation": "image preprocessing or vision encoder, image ",
    "projector of zeros": "vision encoder and projector, embeddings of image ",
    "vision encoder that sees nothing": "image sensitivity, distance between embeddings",
    "permuted vocabulary": TOKENS,
    "other chat template": TOKENS,
}
FAULTS: dict[str, tuple[Fault, str, str]] = {
    # fault: the part that the self-test names, and a threshold that the certificate misses
    "vision encoder of another model": (swap_vision_encoder, VISION, "vision_cosine"),
    "decoder of another model": (swap_decoder, DECODER, "kl_mean"),
    "embedding table of another model": (swap_embedding_table, DECODER, "kl_mean"),
    "wrong image mean": (wrong_mean, VISION, "vision_cosine"),
    "wrong image deviation": (wrong_deviation, VISION, "vision_cosine"),
    "projector of zeros": (zero_projector, VISION, "embeddings_cosine"),
    "vision encoder that sees nothing": (blind_vision_encoder, VISION, "sensitivity"),
    "permuted vocabulary": (permute_vocabulary, DECODER, "kl_mean"),
    "other resizing filter": (other_resize, VISION, "vision_cosine"),
    "other chat template": (other_template, DECODER, "kl_mean"),
}


@pytest.fixture(scope="module")
def reference(tiny_checkpoint: Path) -> Reference:
    return Reference.load(str(tiny_checkpoint))


@pytest.fixture(scope="module")
def other_bundle(tmp_path_factory: pytest.TempPathFactory, export_bundle: Callable[..., Path]) -> Path:
    """The same architecture with other weights."""
    folder = checkpoints.llava(tmp_path_factory.mktemp("other") / "other")
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder)
    checkpoints.randomize(model, seed=77)
    model.save_pretrained(folder)
    return export_bundle(folder)


@pytest.fixture
def few_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three pictures and one text are enough to see a fault."""
    monkeypatch.setattr(inputs, "IMAGES", {name: inputs.IMAGES[name] for name in ("gradients", "shapes", "noise")})
    monkeypatch.setattr(inputs, "TEXTS", inputs.TEXTS[:1])


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def load(bundle: Path) -> onnx.ModelProto:
    return onnx.load(bundle / "vision_encoder.onnx", load_external_data=False)


def edit_constant(bundle: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    model = load(bundle)
    (constant,) = [one for one in model.graph.initializer if one.name == name]
    before = numpy_helper.to_array(constant)
    constant.CopyFrom(numpy_helper.from_array(change(before).astype(before.dtype), name))
    onnx.save(model, bundle / "vision_encoder.onnx")


def sign(bundle: Path, record_self_test: bool = False) -> None:
    """Digests of the files as they are now; with the self-test recorded anew, as a faulty exporter would."""
    manifest = schema.decode((bundle / "manifest.json").read_bytes(), "manifest.json")
    for name in ("manifest.json", "manifest.sha256"):
        (bundle / name).unlink()
    if record_self_test:
        shutil.rmtree(bundle / "selftest")
        manifest = dataclasses.replace(manifest, self_test=None, files=file_records(bundle))
        manifest = selftest.record(bundle, manifest, lambda *_: None)
    write_manifest(bundle, dataclasses.replace(manifest, files=file_records(bundle)))
    seal(bundle)


@pytest.mark.parametrize("name", FAULTS)
def test_unsigned_faults_are_altered_files(name: str, bundle: Path, other_bundle: Path) -> None:
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    FAULTS[name][0](bundle, other_bundle)
    changed = {path.relative_to(bundle).as_posix() for path, data in before.items() if path.read_bytes() != data}
    assert changed
    _, files = check_files(bundle)
    assert {bad.file for bad in files.bad} == changed


@pytest.mark.parametrize("name", FAULTS)
def test_the_self_test_catches_signed_faults(name: str, bundle: Path, other_bundle: Path) -> None:
    fault, part, _ = FAULTS[name]
    fault(bundle, other_bundle)
    sign(bundle)
    opened, files = check_files(bundle)
    assert files.bad == ()
    assert opened is not None
    result = check_self_test(opened, "cpu", threads=1)
    assert not result.passed
    assert str(result.problem).startswith(part)


@pytest.mark.usefixtures("few_inputs")
@pytest.mark.parametrize("name", FAULTS)
def test_the_certificate_catches_faults_of_the_export(
    name: str, bundle: Path, other_bundle: Path, reference: Reference
) -> None:
    fault, _, threshold = FAULTS[name]
    fault(bundle, other_bundle)
    sign(bundle, record_self_test=True)
    opened = Bundle.open(bundle)
    assert check_self_test(opened, "cpu", threads=1).passed, "the self-test only knows what the exporter knew"
    missed = [str(miss) for miss in certify(opened, reference).missed]
    assert any(threshold in line for line in missed), missed
    assert any(line.startswith(NAMED.get(name, "")) for line in missed), missed


@pytest.mark.usefixtures("few_inputs")
def test_a_sound_bundle_misses_nothing(tiny_bundle: Path, reference: Reference) -> None:
    found = certify(Bundle.open(tiny_bundle), reference)
    assert found.missed == ()
    assert found.verdict == "passed"
    assert found.sensitivity is not None
    assert found.sensitivity.least_ratio == pytest.approx(1, abs=1e-4)
