"""Held to a target: what a layer costs is foreseen, the worst are lifted, and the bundle and its manifest say so."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

from edgevlm_export.api import ExportOptions, export
from edgevlm_export.calibration.loss import Loss
from edgevlm_export.calibration.sensitivity import Sensitivity
from edgevlm_export.graphs.edit import Rows
from edgevlm_export.graphs.transforms import rotate_product
from edgevlm_export.planning.plan import ExportPlan, plan_export
from edgevlm_export.precision import get_format
from edgevlm_export.precision.blocks import dequantize, quantize
from edgevlm_export.precision.plan import GraphPrecision
from edgevlm_export.precision.plans import choose
from edgevlm_export.steps.estimate import estimate, with_samples
from edgevlm_export.streaming.material import Material
from edgevlm_export.streaming.sampler import Sampler
from edgevlm_export.streaming.samples import Samples
from edgevlm_export.streaming.spool import Spool
from edgevlm_export.writing.bundle import write_bundle
from edgevlm_runtime import load
from tests.support import checkpoints

LIFT = 0.004


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return checkpoints.llava(tmp_path_factory.mktemp("target") / "tied", "qwen2-tied")


@pytest.fixture(scope="module")
def sampler(folder) -> Sampler:
    return Sampler(plan_export(folder, choose("int4"), None, lambda *_: None), Material())


@pytest.fixture(scope="module")
def samples(sampler):
    return sampler.take(1024, held_back=True)


def measured(sampler: Sampler, samples: Samples, formats: Mapping[str, tuple[str, ...]], folder: Path) -> Sensitivity:
    rows = sampler.plan.graphs["decoder"].rows
    found = Sensitivity(sampler.model, samples, rows, formats, Spool(folder), lambda *_: None)
    found.measure()
    return found


def test_prompts_carry_the_images_as_transformers_merges_them(folder, sampler, samples):
    """The decoder's inputs, for the first prompt, against those of transformers' own forward."""
    reference = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = next(Material().questions(held_back=True))
    inputs = sampler.model.inputs(prompt.question, prompt.images)
    seen: list[torch.Tensor] = []
    hook = reference.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        reference(**inputs)
    hook.remove()
    length = seen[0].shape[1]
    torch.testing.assert_close(samples.embeddings[0, :length], seen[0][0], atol=1e-5, rtol=1e-5)
    image = inputs["input_ids"][0] == reference.config.image_token_index
    assert image.any()
    assert torch.equal(samples.text[0, :length], ~image)
    assert bool(samples.real[-1].all())  # text needs no padding


def test_costs_of_layers_are_foreseen(folder, sampler, samples, tmp_path):
    """Against the loss of transformers' model with only this layer rounded to four bits."""
    formats = sampler.plan.graphs["decoder"].formats
    layers = [name for name in formats if name.endswith(("q_proj.weight", "down_proj.weight", "up_proj.weight"))]
    found = measured(sampler, samples, dict.fromkeys(layers, ("int4", "fp32")), tmp_path)
    reference = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()

    def log_probabilities() -> torch.Tensor:
        with torch.no_grad():
            logits = reference(inputs_embeds=samples.embeddings).logits[samples.text]
        return torch.log_softmax(logits, -1)

    wanted, true, foreseen = log_probabilities(), [], []
    options = get_format("int4").options
    for name in layers:
        weight = reference.get_parameter(name)
        kept = weight.data.clone()
        changed = sampler.model.weights.read(name).float()
        columns = changed.shape[1]
        rounded = dequantize(quantize(changed, options.fitted(columns)), options.fitted(columns), columns)
        # the error, turned back from the rotated basis that it was made in
        weight.data = kept + _turned_back(sampler.plan, name, rounded - changed)
        true.append(float((wanted.exp() * (wanted - log_probabilities())).sum(-1).mean()))
        weight.data = kept
        foreseen.append(found.costs[name]["int4"])
        assert found.costs[name]["fp32"] == 0
    assert 0.5 < sum(foreseen) / sum(true) < 2
    assert np.corrcoef(np.log(foreseen), np.log(true))[0, 1] > 0.8


def _turned_back(plan: ExportPlan, name: str, error: torch.Tensor) -> torch.Tensor:
    """Readers of the residual stream give x Q W^T with the norm's weight in W; writers give Q^T W."""
    from edgevlm_export.graphs.transforms.orthogonal import Orthogonal

    rotation = Orthogonal(plan.family.text_config.hidden_size)
    if name.endswith("down_proj.weight"):
        return rotation.undo(error.t()).t()
    norm = "input_layernorm" if "self_attn" in name else "post_attention_layernorm"
    layer = ".".join(name.split(".")[:-3])
    scale = plan.weights.read(f"{layer}.{norm}.weight").float()
    return rotation.undo(error) / scale


def test_lifted_until_the_target_holds(folder, tmp_path):
    options = ExportOptions(str(folder), tmp_path / "b", "int4", max_kl=LIFT, self_test=False, certificate=False)
    report = export(options)
    found = report.fidelity
    assert found is not None
    assert found.found <= LIFT < found.before
    manifest = load(report.bundle).manifest  # digests of the files that were written last
    assert manifest.fidelity == found
    graph = manifest.graphs["decoder"]
    assert found.lifted
    assert all(graph.exceptions[one.layer] == one.after != one.before == "int4" for one in found.lifted)
    assert all(one.added_bytes > 0 for one in found.lifted)


def test_infinity_measures_nothing():
    assert ExportOptions("inspector", precision="int8").plan.max_kl == 0.02
    assert ExportOptions("inspector", precision="int8", max_kl=float("inf")).plan.max_kl is None
    assert ExportOptions("inspector", precision="int8", decoder="fp16").plan.max_kl is None


def test_single_layers_by_pattern(folder, tmp_path):
    layers = {"*.layers.1.mlp.down_proj": "int8b", "*.mlp.*": "fp32"}
    options = ExportOptions(str(folder), tmp_path / "b", "fp16", layers=layers, self_test=False, certificate=False)
    graph = load(export(options).bundle).manifest.graphs["decoder"]
    formats = {name: graph.exceptions.get(name, graph.precision) for name in graph.exceptions}
    assert formats["model.language_model.layers.1.mlp.down_proj.weight"] == "int8b"
    assert formats["model.language_model.layers.0.mlp.down_proj.weight"] == "fp32"
    assert not any("self_attn" in name for name in formats)


def test_estimate_counts_what_calibration_takes(sampler):
    graphs = list(sampler.plan.graphs.values())
    plain = estimate(graphs, sampler.plan.embedding_bytes)
    needs = with_samples(plain, sampler.plan, Material())
    config = sampler.plan.family.text_config
    assert needs.memory - plain.memory >= 4 * 4 * config.intermediate_size**2
    assert needs.disk > plain.disk


def test_estimate_counts_the_positions_that_are_measured(sampler, samples, monkeypatch):
    """Those that the reference's logits are written for, with prompts of any length."""
    monkeypatch.setattr(sys.modules[with_samples.__module__], "OVERHEAD_BYTES", 0)
    graphs = list(sampler.plan.graphs.values())
    plain = estimate(graphs, sampler.plan.embedding_bytes)
    lifted = replace(sampler.plan, precision=replace(sampler.plan.precision, max_kl=0.01))
    disk = with_samples(plain, lifted, Material()).disk - with_samples(plain, sampler.plan, Material()).disk
    vocab = sampler.plan.family.text_config.vocab_size
    assert disk == int(samples.text.sum()) * vocab * 4


def test_a_short_text_is_followed_by_what_ships(sampler):
    """Images with a prompt longer than the folder's text are no reason to refuse it; nor is a text of one word."""
    short = Sampler(sampler.plan, Material(text="one word"))
    for held_back in (False, True):
        found = short.take(1024, held_back)
        assert bool(found.real[-1].all())
    calibrating, measuring = (short.text_ids(256, held_back) for held_back in (False, True))
    shipped, kept = (sampler.text_ids(256, held_back) for held_back in (False, True))
    assert calibrating[-len(shipped) :] == shipped
    assert len(calibrating) > len(shipped)
    assert measuring[-len(kept) :] == kept


def test_layers_that_read_one_input_are_one_group(sampler, samples, tmp_path):
    """Query, key and value; gate and up. No other two, though a freed tensor's place may be another's."""
    formats = sampler.plan.graphs["decoder"].formats
    layers = [name for name in formats if "layers" in name]
    found = measured(sampler, samples, dict.fromkeys(layers, ("int8",)), tmp_path)
    groups: dict[str, set[str]] = {}
    for name, group in found.groups.items():
        groups.setdefault(group, set()).add(name.removesuffix(".weight").split(".layers.")[1])
    parts = [{f"self_attn.{key}_proj" for key in "qkv"}, {"self_attn.o_proj"}]
    parts += [{"mlp.gate_proj", "mlp.up_proj"}, {"mlp.down_proj"}]
    count = sampler.plan.family.text_config.num_hidden_layers
    wanted = [{f"{layer}.{name}" for name in names} for layer in range(count) for names in parts]
    assert sorted(map(sorted, groups.values())) == sorted(map(sorted, wanted))


def test_what_rotations_do_to_rows_is_marked_in_the_plan(folder, monkeypatch):
    """Norms of a rotated stream give even rows, the tied head's input is turned back; a rotated product is mixed,
    unless it is so narrow that its blocks mix little."""
    narrow = plan_export(folder, choose("int8"), None, lambda *_: None).graphs["decoder"].rows
    assert Rows.MIXED not in narrow.values()
    monkeypatch.setattr(rotate_product, "MIXING", 1)
    known = plan_export(folder, choose("int8"), None, lambda *_: None).graphs["decoder"].rows
    even = {name.split(".")[-2] for name, rows in known.items() if rows is Rows.EVEN}
    assert even == {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"}
    assert {name.split(".")[-2] for name, rows in known.items() if rows is Rows.MIXED} == {"down_proj"}


@pytest.mark.parametrize("family", ["smolvlm", "qwen2_5_vl"])
def test_a_float_bundle_of_any_family_loses_nothing(family, tmp_path):
    """Prompts, images, positions and the reference's logits are the same on both sides; rotations change nothing."""
    folder = getattr(checkpoints, family)(tmp_path / "checkpoint")
    rotated = GraphPrecision("fp32", transforms=("rotate-residual",))
    plan = plan_export(folder, replace(choose("fp32"), decoder=rotated), None, lambda *_: None)
    sampler = Sampler(plan, Material())
    found = sampler.take(512)
    assert not bool(found.text[0].all())
    loss = Loss.of(sampler.model, found, tmp_path)
    (tmp_path / "bundle").mkdir()
    manifest = write_bundle(plan, tmp_path / "bundle", "tiny", None, lambda *_: None)
    assert loss.measure(tmp_path / "bundle", manifest) < 1e-5
