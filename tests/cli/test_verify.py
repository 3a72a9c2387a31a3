"""`edgevlm verify`: a byte flipped in any file is found and named; the self-test speaks for the graphs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

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
    assert found["passed"] is True
    assert found["problems"] == []
    assert found["files"]["checked"] == len(names(tiny_bundle)) - 1  # all but the manifest's own digest
    assert (found["files"]["bad"], found["files"]["manifest_checked"]) == ([], True)
    assert found["self_test"]["passed"] is True
    assert found["self_test"]["providers"]["cpu"]["tokens_equal"] is True
    assert found["parity"] is None


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
    from edgevlm_export.certificate import inputs

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


@pytest.mark.usefixtures("few_inputs")
def test_against_another_model(invoke, tiny_bundle, tmp_path):
    from tests.support import checkpoints

    other = checkpoints.llava(tmp_path / "other", decoder="qwen3")
    result = invoke("verify", tiny_bundle, "--reference", other)
    assert result.exit_code == 1
    assert "Does not hold: decoder, next-token distributions: kl_mean is" in result.stderr
    assert "differs from PyTorch's from token" in result.stderr


@pytest.mark.usefixtures("few_inputs")
def test_an_export_that_drifts_exits_with_1(invoke, tiny_checkpoint, tmp_path, monkeypatch):
    from dataclasses import replace

    from edgevlm_export.certificate import thresholds

    strict = replace(thresholds.EXACT, top1_agreement=2.0)
    monkeypatch.setitem(thresholds.BY_PRECISION, "fp32", strict)
    command = ("export", tiny_checkpoint, "-o", tmp_path / "out", "--no-self-test", "--json")
    result = invoke(*command)
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["bundle"] == str(tmp_path / "out.drifted")
    assert "top1_agreement is 1, at least 2 is needed" in found["missed"][0]
    assert "--allow-drift" in result.stderr
    assert not (tmp_path / "out").exists()
    allowed = invoke(*command, "--allow-drift", "only a test")
    assert allowed.exit_code == 0, allowed.stderr
    assert json.loads(allowed.stdout)["certificate"] == "drift allowed"
    shown = invoke("inspect", tmp_path / "out").stdout
    assert "drift allowed: embeddings' cosine at least 1.0" in shown


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
    (bundle / "manifest.json").write_text("{")
    (bundle / "manifest.sha256").unlink()
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
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 99}))
    (bundle / "manifest.sha256").unlink()
    assert "newer" in refused(invoke("verify", bundle))


def test_a_provider_that_is_not_there(invoke, refused, bundle):
    assert "DmlExecutionProvider" in refused(invoke("verify", bundle, "--provider", "dml"))
