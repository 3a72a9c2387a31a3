"""What is not a finite number is refused where it enters, and no loop waits for it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from edgevlm_export.api import ExportOptions, export
from edgevlm_export.calibration.lifting import Layer, choose
from edgevlm_export.checkpoints.weights.shards import index
from edgevlm_export.finite import is_finite
from edgevlm_export.precision import get_format
from edgevlm_export.precision.blocks import BlockOptions
from edgevlm_export.precision.gptq import Curvature, gptq
from edgevlm_export.proof.certificate import measure
from edgevlm_export.reference import Reference
from edgevlm_export.writing.writer import check_made
from edgevlm_runtime.errors import CheckpointError, EdgeVLMError, ExportError

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
ODD = [float("nan"), float("inf"), -float("inf"), 1e300, 3.4e38, 1e-45, 0.0]


@settings(deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    size=st.integers(1, 300),
    planted=st.lists(st.tuples(st.integers(0, 299), st.sampled_from(ODD)), max_size=3),
)
def test_one_pass_finds_what_looking_at_every_value_finds(dtype, size, planted):
    values = torch.linspace(-2, 2, size).to(torch.float64)
    for place, value in planted:
        values[place % size] = value
    values = values.to(dtype)
    assert is_finite(values) == bool(torch.isfinite(values.float()).all())


def test_nothing_and_integers_are_finite():
    assert is_finite(torch.empty(0))
    assert is_finite(torch.empty(3, 0))
    assert is_finite(torch.ones(3, dtype=torch.int8))


@pytest.mark.parametrize("dtype", DTYPES[:4])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_is_refused_as_it_is_read(tmp_path, dtype, value):
    weight = torch.ones(40, 33, dtype=dtype)
    weight[17, 5] = value
    save_file({"sound": torch.ones(3, 3), "layers.0.mlp.down_proj": weight}, tmp_path / "model.safetensors")
    stored = {one.name: one for one in index(tmp_path / "model.safetensors")}
    assert is_finite(stored["sound"].read())
    assert is_finite(stored["layers.0.mlp.down_proj"].rows(0, 17))
    for read in (stored["layers.0.mlp.down_proj"].read, lambda: stored["layers.0.mlp.down_proj"].rows(10, 20)):
        with pytest.raises(CheckpointError, match=r"not a finite number: .*model.safetensors: layers.0.mlp.down_proj"):
            read()


@pytest.fixture(
    scope="module", params=["lm_head.weight", "mlp.down_proj.weight", "multi_modal_projector.linear_1.weight"]
)
def damaged(request, tiny_checkpoint, tmp_path_factory):
    """A checkpoint with one NaN, and the name of the weight."""
    folder = tmp_path_factory.mktemp("nan") / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)
    tensors = load_file(folder / "model.safetensors")
    name = [name for name in tensors if name.endswith(request.param)][-1]
    tensors[name].view(-1)[-1] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder, name


def test_an_export_names_the_weight(damaged, tmp_path):
    folder, name = damaged
    precision = "int4" if "down_proj" in name else "int8"
    with pytest.raises(CheckpointError) as caught:
        export(ExportOptions(str(folder), tmp_path / "bundle", precision, max_kl=float("inf"), bake_prefix=False))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_reference_names_the_weight(damaged):
    folder, _ = damaged
    with pytest.raises(CheckpointError, match="not a finite number"):
        Reference.load(str(folder))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(-30, 30), st.floats(0, 25), st.sampled_from([4, 32, 64]))
def test_rounding_ends_whatever_the_inputs_sizes(seed, size, spread, columns):
    """Inputs from 1e-30 to 1e30, channels up to 1e25 apart: a result of finite numbers, or one line."""
    generator = torch.Generator().manual_seed(seed)
    scales = 10 ** (size + spread * torch.rand(columns, generator=generator))
    x = torch.randn(96, columns, generator=generator) * scales
    weight = torch.randn(8, columns, generator=generator)
    try:
        held = gptq(weight, Curvature.of(x.t() @ x), BlockOptions(4, 32))
    except ArithmeticError:
        return
    assert is_finite(held.scales)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_products_that_are_no_numbers_are_refused(value):
    gram = torch.eye(8)
    gram[3, 3] = value
    with pytest.raises(ArithmeticError, match="no finite numbers"):
        Curvature.of(gram)


@pytest.mark.parametrize(("holder", "dialect"), [("int8", "standard"), ("fp8", "standard"), ("int4", "standard")])
def test_scales_that_overflow_are_refused(holder, dialect):
    job = get_format(holder, dialect).pack("w", (32, 64))
    large = torch.full((32, 64), 1e38)
    made = job.make(large)
    if all(map(is_finite, made.values())):
        check_made("w", made)
        return
    with pytest.raises(CheckpointError, match=r"does not fit this precision.*: w:"):
        check_made("w", made)


def test_layers_that_cost_more_than_a_number_are_lifted_first():
    layers = [
        Layer(name, name, 10, ("int8", "fp32"), (cost, 0.0), (10, 40)) for name, cost in (("a", 0.01), ("b", 1e12))
    ]
    assert [lift.weight for lift in choose(layers, 0.02)] == ["b"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_figures_of_what_is_no_number_are_numbers_that_reach_nothing(value):
    sound = np.ones((3, 4), np.float32)
    broken = sound.copy()
    broken[1, 1] = value
    for ours, theirs in ((sound, broken), (broken, sound), (broken, broken)):
        figures = measure.image_figures((ours, ours), (theirs, theirs))
        json.dumps([figures.embeddings_cosine, figures.embeddings_max_abs], allow_nan=False)
        assert figures.embeddings_cosine == 0.0
        assert figures.embeddings_max_abs > 1e6
    answers = {name: measure.Answered("?", (1,), (1,)) for name in "ab"}
    looks = measure.sensitivity({"a": (broken, sound), "b": (sound, 2 * sound)}, answers)
    assert looks.least_ratio == 0.0


def test_options_that_are_no_numbers_are_refused():
    for value in (float("nan"), -1.0, 0.0):
        with pytest.raises(EdgeVLMError, match="max-kl"):
            ExportOptions("inspector", precision="int8", max_kl=value)
    with pytest.raises(ExportError, match="allow-drift"):
        ExportOptions("inspector", allow_drift=" ")


def test_a_config_whose_figures_make_no_numbers_is_refused(tiny_checkpoint, tmp_path):
    """A negative base, to the power of a fraction, is no number: every answer would be none."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["rope_parameters"]["rope_theta"] = -10000.0
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(EdgeVLMError, match=r"no numbers|rope_theta"):
        export(ExportOptions(str(folder), tmp_path / "bundle", certificate=False, self_test=False))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
