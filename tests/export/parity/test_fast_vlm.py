"""FastVLM beside what every family is held to: `make test-full` runs these with timm and torchvision, which the other
tests must not see."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import edgevlm_runtime
from edgevlm_export.api import ExportOptions
from edgevlm_export.planning.plan import plan_export
from edgevlm_export.precision.plans import choose
from edgevlm_export.reference import Forced, Reference, StreamedReference
from edgevlm_export.steps.calibration import calibrate
from edgevlm_export.streaming.material import Material
from edgevlm_export.streaming.spool import Spool
from edgevlm_runtime.bundle.certificate import read_certificate
from edgevlm_runtime.errors import CheckpointError, UnsupportedModel
from tests.export.parity.test_blocks import Case
from tests.export.parity.test_parity import QUESTIONS, VARIED, pictures
from tests.export.parity.test_states import check_precision
from tests.support import checkpoints
from tests.support.checkpoints.weights import write_json

needs_timm = pytest.mark.skipif(not checkpoints.TIMM, reason="timm and torchvision are not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.fast_vlm(tmp_path_factory.mktemp("fast") / "fast_vlm", **VARIED)


@needs_timm
def test_int8_with_its_certificate(folder: Path, export_bundle: Callable[..., Path]) -> None:
    bundle = export_bundle(folder, certificate=True, precision="int8")
    certificate = read_certificate(edgevlm_runtime.load(bundle).bundle)
    assert certificate is not None
    assert certificate.verdict == "passed"
    check_precision(Case(folder, bundle, Reference.load(str(folder))), bundle, {"precision": "int8"}, 1e-2)


@needs_timm
def test_convolutions_over_single_places_are_calibrated(folder: Path, tmp_path: Path) -> None:
    """Those of every MLP, of the stem and between stages, and of the last squeeze and excitation, as all layers are."""
    plan = plan_export(folder, choose("fp32", vision="int4:block=32"), None, lambda *_: None)
    spool, graph = Spool(tmp_path), plan.graphs["vision_encoder"]
    calibrate(plan, Material(), spool, lambda *_: None)
    convolutions = {name for name in graph.formats if len(plan.weights.tensors[name].shape) == 4}
    for part, count in {".mlp.fc1.": 5, ".mlp.fc2.": 5, ".stem.2.": 1, ".downsample.proj.1.": 4, ".se.fc": 2}.items():
        assert sum(part in name for name in convolutions) == count
    assert set(graph.calibrated) == set(graph.formats) > convolutions
    assert all(spool.load(name) is not None for name in graph.calibrated)


@needs_timm
def test_a_reference_layer_by_layer_reads_the_same(folder: Path) -> None:
    reference, image = Reference.load(str(folder)), pictures()[2]
    answer = reference.answer(QUESTIONS[0], [image], max_new_tokens=6).token_ids
    prompts = [Forced(QUESTIONS[0], (image,), answer)]
    for whole, part in zip(
        reference.read(prompts, 6), StreamedReference.load(str(folder)).read(prompts, 6), strict=True
    ):
        np.testing.assert_allclose(part.logits, whole.logits, atol=1e-5)


@needs_timm
def test_running_statistics_are_the_checkpoints(folder: Path, tmp_path: Path, export_bundle) -> None:
    """Other ones give other features."""
    other = shutil.copytree(folder, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    (name,) = [name for name in tensors if name.endswith("stages.0.blocks.0.mlp.conv.bn.running_mean")]
    tensors[name] = tensors[name] + 1
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    image = pictures()[0]
    one, two = (edgevlm_runtime.load(export_bundle(each)) for each in (folder, other))
    first, second = (vlm.pipeline.encoder.encode(vlm.pipeline.prepare(image)).embeddings for vlm in (one, two))
    assert np.abs(second - Reference.load(str(other)).image_embeddings(image)).max() < 1e-4
    assert np.abs(second - first).max() > 1e-3


@needs_timm
@pytest.mark.parametrize("change", [{"patch_size": 32}, {"patch_size": None}, {"num_additional_image_tokens": 1}])
def test_processors_that_count_otherwise(folder: Path, tmp_path: Path, change: dict[str, int]) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    file = other / "processor_config.json"
    write_json(file, {**json.loads(file.read_text(encoding="utf-8")), **change})
    with pytest.raises(CheckpointError, match="do not belong together"):
        plan_export(other, ExportOptions(str(other)).plan, None, lambda *_: None)


@pytest.mark.skipif(checkpoints.TIMM, reason="timm is installed")
def test_without_timm(tmp_path: Path) -> None:
    vision = {"model_type": "timm_wrapper", "architecture": "fastvit_mci3"}
    folder = checkpoints.llava(tmp_path / "checkpoint")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    fast = {"model_type": "fast_vlm", "vision_feature_select_strategy": "full", "vision_feature_layer": -1}
    write_json(folder / "config.json", {**config, **fast, "vision_config": vision})
    settings = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
    write_json(folder / "processor_config.json", {**settings, "vision_feature_select_strategy": "full"})
    with pytest.raises(UnsupportedModel, match=r"timm.*pip install .*fast-vlm") as error:
        plan_export(folder, ExportOptions(str(folder)).plan, None, lambda *_: None)
    assert "\n" not in str(error.value)
