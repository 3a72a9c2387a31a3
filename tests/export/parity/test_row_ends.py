"""Images with text behind each row of their tokens (Pixtral, Mistral 3), however a prompt is cut and whatever is
reused: token for token what transformers' generate gives. Ministral 3's queries grow with their position."""

from __future__ import annotations

import json

import pytest

import edgevlm_runtime
from edgevlm_export.api import ExportOptions
from edgevlm_export.planning.plan import plan_export
from edgevlm_runtime.bundle.certificate import read_certificate
from edgevlm_runtime.errors import CheckpointError, UnsupportedModel
from tests.export.parity.test_blocks import Case, check_streamed
from tests.export.parity.test_parity import CASES
from tests.export.parity.test_states import check_precision, check_reuse
from tests.support import checkpoints
from tests.support.checkpoints.weights import write_json
from tests.support.references import Remembered

FAMILIES = ["llava-pixtral-published", "mistral3-ministral3"]


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, export_bundle) -> Case:
    folder = CASES[request.param](tmp_path_factory.mktemp("rows") / request.param)
    return Case(folder, export_bundle(folder), Remembered.load(str(folder)))


def test_what_is_reused_is_what_a_fresh_run_computes(case: Case) -> None:
    reused = check_reuse(case, edgevlm_runtime.load(case.bundle, prefill_chunk=5, verify="size"))
    assert min(reused[1:5]) > max(reused[0], reused[5])  # the image and its row ends


def test_a_reference_layer_by_layer_reads_the_same(case: Case) -> None:
    check_streamed(case)


@pytest.mark.parametrize(("options", "closeness"), [({"precision": "fp16"}, 1e-5), ({"kv": "int8"}, 1e-3)], ids=str)
def test_other_precisions(case: Case, export_bundle, options: dict[str, str], closeness: float) -> None:
    check_precision(case, export_bundle(case.folder, **options), options, closeness)


def test_int8_with_its_certificate(case: Case, export_bundle) -> None:
    """Vision features compared in the order of both, patches merged or not."""
    options = {"precision": "int8"}
    bundle = export_bundle(case.folder, certificate=True, **options)
    certificate = read_certificate(edgevlm_runtime.load(bundle).bundle)
    assert certificate is not None
    assert certificate.verdict == "passed"
    check_precision(case, bundle, options, 1e-2)


def test_standard_operators(case: Case, export_bundle) -> None:
    bundle = export_bundle(case.folder, target="tensorrt-rtx")
    check_reuse(case, edgevlm_runtime.load(bundle, prefill_chunk=16))
    info = edgevlm_runtime.load(bundle).manifest.graphs["vision_encoder"]
    assert info.largest("patches") > 0


@pytest.mark.parametrize(
    ("make", "change", "error", "words"),
    [
        (checkpoints.pixtral, {"vision_feature_select_strategy": "default"}, CheckpointError, "leaves out a patch"),
        (checkpoints.pixtral, {"vision_feature_layer": 4}, CheckpointError, "not in a tower of 3 layers"),
        (checkpoints.mistral3, {"spatial_merge_size": 3}, CheckpointError, "in the model 12 by 3"),
    ],
)
def test_what_cannot_be(tmp_path, make, change, error, words) -> None:
    folder = make(tmp_path / "checkpoint")
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, **change})
    with pytest.raises(error, match=words):
        plan_export(folder, ExportOptions(str(folder)).plan, None, lambda *_: None)


def test_several_layers_of_the_tower(tmp_path, monkeypatch) -> None:
    """Whose norm transformers itself cannot compute."""
    shape = {**checkpoints.MISTRAL3_SHAPES["published"], "layer": [-1, -2]}
    monkeypatch.setitem(checkpoints.MISTRAL3_SHAPES, "published", shape)
    folder = checkpoints.mistral3(tmp_path / "checkpoint")
    with pytest.raises(UnsupportedModel, match="mistral3 norms one layer"):
        plan_export(folder, ExportOptions(str(folder)).plan, None, lambda *_: None)
