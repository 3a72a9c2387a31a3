"""`edgevlm verify`: a byte flipped in any file is found and named; the self-test speaks for the graphs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import records
from tests.support.seal import write_manifest

Copy = Callable[[], Path]


@pytest.fixture
def bundle(tiny_bundle, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def flip(file: Path, place: float = 0.5) -> None:
    data = bytearray(file.read_bytes())
    data[int((len(data) - 1) * place)] ^= 1
    file.write_bytes(data)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_sound_bundle(invoke, tiny_bundle):
    result = invoke("verify", tiny_bundle, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    records.check("verify", found)
    assert found["passed"] is True
    assert found["problems"] == []
    assert found["files"]["checked"] == len(names(tiny_bundle)) - 1  # all but the manifest's own digest
    assert (found["files"]["bad"], found["files"]["manifest_checked"]) == ([], True)
    assert found["self_test"]["passed"] is True
    told = found["self_test"]["providers"]["cpu"]
    assert told["tokens_equal"] is True
    assert told["engine"].endswith("CPUExecutionProvider")
    assert told["reason"] == "as asked"
    assert found["parity"] is None
    assert found["engines"] is None


def test_what_each_engine_makes_of_each_graph(invoke, tiny_bundle):
    """A graph that an engine cannot run is no fault of the bundle."""
    result = invoke("verify", tiny_bundle, "--engines", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    records.check("verify", found)
    trials = {one["graph"]: {trial["engine"]: trial for trial in one["trials"]} for one in found["engines"]}
    assert list(trials) == ["vision_encoder", "projector", "decoder"]
    for graph, of_graph in trials.items():
        assert of_graph["ort"]["passed"] is True
        assert of_graph["ort"]["cosine_min"] == pytest.approx(1.0)
        if "openvino" in of_graph:
            assert of_graph["openvino"]["passed"] is (graph != "decoder")
            assert of_graph["openvino"]["ms"] is None
    shown = invoke("verify", tiny_bundle, "--engines").stdout
    assert all(f"{graph} " in shown for graph in trials)


def test_a_flipped_byte_in_any_file_is_named(invoke, bundle):
    every = names(bundle)
    assert {"manifest.json", "manifest.sha256", "decoder.onnx", "tokenizer.json", "selftest/image.png"} <= set(every)
    for name in every:
        for place in (0.0, 0.5, 1.0):
            before = (bundle / name).read_bytes()
            flip(bundle / name, place)
            result = invoke("verify", bundle, "--json")
            assert result.exit_code == 1, (name, place, result.stderr)
            found = json.loads(result.stdout)
            named = {bad["file"] for bad in found["files"]["bad"]}
            either = {"manifest.json", "manifest.sha256"}
            assert named == {name} or (name in either and named <= either), (name, place, found)
            assert name in result.stderr or name in either
            (bundle / name).write_bytes(before)
    assert invoke("verify", bundle).exit_code == 0


@pytest.fixture
def few_inputs(monkeypatch):
    from edgevlm_export.proof.certificate import inputs

    monkeypatch.setattr(inputs, "IMAGES", {name: inputs.IMAGES[name] for name in ("shapes", "noise")})
    monkeypatch.setattr(inputs, "TEXTS", inputs.TEXTS[:1])


@pytest.mark.usefixtures("few_inputs")
def test_against_pytorch(invoke, tiny_bundle, tiny_checkpoint):
    result = invoke("verify", tiny_bundle, "--reference", tiny_checkpoint, "--json")
    assert result.exit_code == 0, result.stderr
    parity = json.loads(result.stdout)["parity"]
    assert list(parity) == ["vision_encoder", "projector", "decoder", "greedy", "sensitivity"]
    assert list(parity["vision_encoder"]) == list(parity["projector"]) == ["cosine_min", "max_abs"]
    assert list(parity["decoder"]) == ["kl_mean", "kl_p99", "top1_agreement"]
    assert parity["greedy"] == {"prompts": 3, "identical": 3}
    assert parity["decoder"]["top1_agreement"] == 1.0
    found = json.loads(result.stdout)
    assert found["reference"] == "LlavaForConditionalGeneration tiny-llava, float32"
    assert found["same_checkpoint"] is True


@pytest.mark.usefixtures("few_inputs")
def test_against_another_model(invoke, tiny_bundle, tmp_path):
    from tests.support import checkpoints

    other = checkpoints.llava(tmp_path / "other", decoder="qwen3")
    result = invoke("verify", tiny_bundle, "--reference", other)
    assert result.exit_code == 1
    first = f"Does not hold: {other} is not the checkpoint that this bundle was made from (tiny-llava)"
    assert first in result.stderr
    assert "Does not hold: decoder, next-token distributions: kl_mean is" in result.stderr
    assert "differs from PyTorch's from token" in result.stderr


@pytest.mark.usefixtures("few_inputs")
def test_against_a_model_of_another_family(invoke, tiny_bundle, tmp_path):
    """Other image tokens, other sizes: nothing can be compared, and that is what it says."""
    from tests.support import checkpoints

    other = checkpoints.qwen2_5_vl(tmp_path / "other")
    result = invoke("verify", tiny_bundle, "--reference", other, "--json")
    assert result.exit_code == 1, result.stderr
    found = json.loads(result.stdout)
    assert found["same_checkpoint"] is False
    assert found["parity"]["projector"]["cosine_min"] == 0
    assert any(
        problem.startswith("tokenizer, chat template or number of image tokens") for problem in found["problems"]
    )


@pytest.mark.usefixtures("few_inputs")
def test_an_export_that_drifts_exits_with_1(invoke, tiny_checkpoint, tmp_path, monkeypatch):
    from dataclasses import replace

    from edgevlm_export.precision import get_format

    strict = replace(get_format("fp32").thresholds, top1_agreement=2.0)
    monkeypatch.setattr(get_format("fp32"), "thresholds", strict)
    command = ("export", tiny_checkpoint, "-o", tmp_path / "out", "--no-self-test", "--json")
    result = invoke(*command)
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    records.check("export", found, record=1)
    assert found["bundle"] == str(tmp_path / "out.drifted")
    assert "top1_agreement is 1, at least 2 is needed" in found["missed"][0]
    assert "--allow-drift" in result.stderr
    assert not (tmp_path / "out").exists()
    allowed = invoke(*command, "--allow-drift", "only a test")
    assert allowed.exit_code == 0, allowed.stderr
    assert json.loads(allowed.stdout)["certificate"] == "drift allowed"
    shown = invoke("inspect", tmp_path / "out").stdout
    assert "drift allowed: embeddings' cosine at least 1.0" in shown
    again = invoke("verify", tmp_path / "out", "--reference", tiny_checkpoint)
    assert again.exit_code == 0, again.stderr
    assert "Missed, and allowed at export (only a test): decoder, likeliest token: top1_agreement is 1" in again.stderr
    monkeypatch.setattr(get_format("fp32"), "thresholds", replace(strict, sensitivity=2.0))
    worse = invoke("verify", tmp_path / "out", "--reference", tiny_checkpoint)
    assert worse.exit_code == 1
    assert "Does not hold: image sensitivity, distance between embeddings: sensitivity is" in worse.stderr
    assert "Does not hold: decoder, likeliest token" not in worse.stderr


def test_every_bad_file_is_listed(invoke, bundle):
    (bundle / "tokenizer.json").unlink()
    flip(bundle / "decoder.onnx.data")
    (bundle / "projector.onnx").write_bytes(b"")
    found = json.loads(invoke("verify", bundle, "--json").stdout)
    problems = {bad["file"]: bad["problem"] for bad in found["files"]["bad"]}
    assert list(problems) == ["decoder.onnx.data", "projector.onnx", "tokenizer.json"]
    assert problems["tokenizer.json"] == "it is missing"
    assert "0 bytes instead of" in problems["projector.onnx"]
    assert found["self_test"] is None


def test_a_manifest_that_is_no_json(invoke, bundle):
    write_manifest(bundle, "{")
    result = invoke("verify", bundle)
    assert result.exit_code == 1
    assert "manifest.json" in result.stderr


def test_the_digest_is_what_sha256sum_reads(tiny_bundle):
    import subprocess

    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    subprocess.run(["sha256sum", "--check", "manifest.sha256"], cwd=tiny_bundle, check=True, capture_output=True)


def test_no_bundle(invoke, refused, tmp_path, bundle):
    assert "no such bundle" in refused(invoke("verify", tmp_path / "nowhere"))
    (bundle / "manifest.json").unlink()
    assert "manifest.json" in refused(invoke("verify", bundle))


def test_a_newer_bundle_is_not_judged(invoke, refused, bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    write_manifest(bundle, {**manifest, "schema_version": 99})
    assert "newer" in refused(invoke("verify", bundle))


def test_auto_says_what_it_took_and_why(invoke, tiny_bundle):
    from edgevlm_runtime.engines.ort_library import ort as onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed here")
    result = invoke("verify", tiny_bundle, "--provider", "auto")
    version = f"onnxruntime {onnxruntime.__version__} CPUExecutionProvider"
    why = "auto: cuda is not in the installed onnxruntime"
    assert f"self-test on auto ({version}; {why}): passed" in result.stdout


def test_another_engine(invoke, refused, bundle, tiny_checkpoint, tmp_path, monkeypatch):
    """A FAKE library, which computes with onnxruntime: a bundle without an engine fails, one with engines answers."""
    from tests.support.fake_cuda import FakeCuda
    from tests.support.fake_engines import add_fake_engines, install
    from tests.support.fake_nvidia import fake_tensorrt

    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    assert "tensorrt_rtx is not installed" in refused(invoke("verify", bundle, "--engine", "tensorrt-rtx"))
    install(monkeypatch, fake_tensorrt(FakeCuda()))
    without = invoke("verify", bundle, "--engine", "tensorrt-rtx")
    assert without.exit_code == 1
    assert "self-test on tensorrt-rtx: FAILED" in without.stdout
    assert "has no engine for" in without.stderr
    made = invoke(
        "export", tiny_checkpoint, "-o", tmp_path / "std", "--fp16", "--target", "tensorrt-rtx", "--no-certificate"
    )
    assert made.exit_code == 0, made.stderr
    add_fake_engines(tmp_path / "std")
    found = invoke("verify", tmp_path / "std", "--engine", "tensorrt-rtx", "--json")
    assert found.exit_code == 0, found.stderr
    told = json.loads(found.stdout)["self_test"]["providers"]["tensorrt-rtx"]
    assert (told["passed"], told["engine"], told["reason"]) == (
        True,
        "tensorrt_rtx 0.0-fake Fake GPU SM 89",
        "as asked",
    )
    both = invoke("verify", bundle, "--engine", "tensorrt-rtx", "--provider", "cpu")
    assert "--provider is ONNX Runtime's" in refused(both)


def test_a_provider_that_is_not_there(invoke, refused, bundle):
    assert "DmlExecutionProvider" in refused(invoke("verify", bundle, "--provider", "dml"))
