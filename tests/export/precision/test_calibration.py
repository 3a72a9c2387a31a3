"""Calibrated int4: the pass over streamed weights, the text it reads, and what the bundle gains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForImageTextToText

from edgevlm_export.api import ExportOptions
from edgevlm_export.checkpoints import checkpoint, skeleton
from edgevlm_export.families.text_config import kv_shape
from edgevlm_export.planning.plan import plan_export
from edgevlm_export.precision import plans
from edgevlm_export.steps.calibration import calibrate
from edgevlm_export.streaming import samples
from edgevlm_export.streaming.forward import streamed
from edgevlm_export.streaming.material import Material, manual
from edgevlm_export.streaming.samples import part, spread
from edgevlm_export.streaming.spool import Spool
from edgevlm_runtime.errors import ExportError
from tests.support import checkpoints
from tests.support.operators import run_decoder

TEXT = (Path(__file__).parents[3] / "benchmarks" / "english.txt").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    """Tiny models need no more."""
    monkeypatch.setattr(samples, "SEQUENCES", 16)


@pytest.mark.parametrize("decoder", ["mistral-window", "gemma"])
def test_streamed_model_computes_like_the_whole_one(decoder, tmp_path):
    """And no parameter stays in memory."""
    folder = checkpoints.llava(tmp_path / "checkpoint", decoder)
    whole = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    model = skeleton.build(checkpoint.load_config(folder))
    weights = checkpoint.open_weights(folder, model)
    embeddings = torch.randn(2, 15, model.config.get_text_config().hidden_size)
    seen: list[str] = []
    with streamed(model, weights.read, lambda name, module, x: seen.append(name)):
        found = model.model.language_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
    with torch.no_grad():
        wanted = whole.model.language_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert len(seen) == len(set(seen)) == 7 * model.config.get_text_config().num_hidden_layers
    assert all(parameter.is_meta for parameter in model.parameters())


def _measure(folder: Path) -> Callable[[Path], float]:
    """A decoder's error on English that it was not calibrated with."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens = torch.tensor([words.encode(TEXT).ids[:200]])
    with torch.no_grad():
        embeddings = model.get_input_embeddings()(tokens).numpy()
        wanted = model(inputs_embeds=torch.from_numpy(embeddings)).logits[0].numpy()
    kv = kv_shape(model.config.get_text_config())

    def error(bundle: Path) -> float:
        found = run_decoder(bundle / "decoder.onnx", embeddings, kv.kv_heads, kv.head_dim)
        return float(np.linalg.norm(found - wanted))

    return error


def test_calibration_beats_rounding(tmp_path, export_bundle):
    folder = checkpoints.llava(tmp_path / "checkpoint", "llama-full-heads")
    error = _measure(folder)
    calibrated = error(export_bundle(folder, anew=True, precision="int4"))
    # the plan's own layers in four bits: all but down_proj and the head
    nearest = {"*language_model*[qkvoep]_proj": "int4:nearest"}
    assert calibrated < 0.95 * error(export_bundle(folder, anew=True, precision="int4", layers=nearest))


@pytest.mark.parametrize("decoder", ["llama-full-heads", "qwen2-tied"])
def test_the_head_is_calibrated_too(decoder, tmp_path, export_bundle):
    """Also where it is the table of token embeddings."""
    folder = checkpoints.llava(tmp_path / "checkpoint", decoder)
    error = _measure(folder)
    found = {
        name: error(export_bundle(folder, anew=True, layers={"lm_head": name})) for name in ("int4", "int4:nearest")
    }
    assert found["int4"] < 0.95 * found["int4:nearest"]


def test_nothing_is_calibrated_where_all_is_nearest(tmp_path):
    folder = checkpoints.llava(tmp_path / "checkpoint", "qwen2")
    options = ExportOptions(str(folder), precision="int4", decoder="int4:nearest")
    assert not options.plan.calibrates
    plan = plan_export(folder, options.plan, None, lambda *_: None)
    decoder = plan.graphs["decoder"]
    assert set(decoder.formats.values()) == {"int4:nearest"}
    assert not decoder.calibrated


def test_same_bytes_twice(tmp_path, export_bundle):
    folder = checkpoints.llava(tmp_path / "checkpoint", "qwen2")
    bundles = [export_bundle(folder, anew=True, precision="int4") for _ in range(2)]
    first, second = ((bundle / "decoder.onnx.data").read_bytes() for bundle in bundles)
    assert first == second


def test_vision_layers_in_four_bits_are_calibrated(tmp_path):
    """Every one that the graph has."""
    folder = checkpoints.llava(tmp_path / "checkpoint", "qwen2")
    plan = plan_export(folder, plans.choose("fp32", vision="int4:block=32"), None, lambda *_: None)
    spool = Spool(tmp_path)
    calibrate(plan, Material(), spool, lambda *_: None)
    weights = plan.graphs["vision_encoder"].calibrated
    assert len(weights) == len(plan.graphs["vision_encoder"].formats) > 10
    differ = 0
    for job in plan.graphs["vision_encoder"].jobs:
        if job.source in weights:
            made, nearest = spool.load(job.source), job.make(plan.weights.read(job.source))
            assert {name: tensor.shape for name, tensor in made.items()} == {
                name: tensor.shape for name, tensor in nearest.items()
            }
            differ += any(not torch.equal(made[name], nearest[name]) for name in nearest)
    assert differ == len(weights)


def test_sequences_are_spread_over_the_text():
    ids = list(range(100_000))
    found = spread(ids, 64, 256)
    assert found.shape == (64, 256)
    assert int(found[-1, -1]) > 0.9 * len(ids)
    assert len(manual()) > 100_000


@pytest.mark.parametrize("tokens", [5 * 256 * 64, 2_000, 100_000])
def test_what_is_measured_was_not_calibrated_with(tokens):
    """Whatever number of sequences either takes: 16,384 positions against 1,024."""
    ids = list(range(tokens))
    calibrated, measured = (set(part(ids, held_back)) for held_back in (False, True))
    assert not calibrated & measured
    assert len(calibrated | measured) == tokens
    taken = spread(part(ids, False), 16384 // 256, 256), spread(part(ids, True), 1024 // 256, 256)
    assert not set(taken[0].flatten().tolist()) & set(taken[1].flatten().tolist())


def test_text_too_short():
    with pytest.raises(ExportError, match="calibration text too short: 3 tokens"):
        spread([1, 2, 3], 16, 256)


def test_nothing_to_calibrate(tmp_path):
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    with pytest.raises(ExportError, match="nothing to calibrate"):
        ExportOptions(str(tmp_path), precision="fp16", calibrate=tmp_path)
