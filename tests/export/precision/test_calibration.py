"""Calibrated int4: the pass over streamed weights, the text it reads, and what the bundle gains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForImageTextToText

from edgevlm_export import checkpoint, skeleton
from edgevlm_export.api import ExportOptions
from edgevlm_export.calibration.samples import LENGTH, SEQUENCES, folder_text, manual, sample
from edgevlm_export.calibration.streamed import streamed
from edgevlm_export.decoder import kv_shape
from edgevlm_export.precision import plans
from edgevlm_runtime.errors import ExportError
from tests.support import checkpoints
from tests.support.operators import run_decoder

TEXT = (Path(__file__).parents[3] / "benchmarks" / "english.txt").read_text(encoding="utf-8")


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


def test_calibration_beats_rounding(tmp_path, export_bundle, monkeypatch):
    """The exported decoder's error on English that it was not calibrated with."""
    folder = checkpoints.llava(tmp_path / "checkpoint", "llama-full-heads")
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens = torch.tensor([words.encode(TEXT).ids[:200]])
    with torch.no_grad():
        embeddings = model.get_input_embeddings()(tokens).numpy()
        wanted = model(inputs_embeds=torch.from_numpy(embeddings)).logits[0].numpy()
    kv = kv_shape(model.config.get_text_config())

    def error(bundle) -> float:
        found = run_decoder(bundle / "decoder.onnx", embeddings, kv.kv_heads, kv.head_dim)
        return float(np.linalg.norm(found - wanted))

    calibrated = error(export_bundle(folder, precision="int4"))
    nearest = plans.GraphPrecision("int4", roles={"head": "int8b"}, transforms=("rotate-residual",))
    monkeypatch.setitem(
        plans.PLANS, "int4", plans.PrecisionPlan(*[plans.GraphPrecision("int8")] * 2, nearest, embedding="int8b")
    )
    assert calibrated < 0.95 * error(export_bundle(folder, precision="int4"))


def test_same_bytes_twice(tmp_path, export_bundle):
    folder = checkpoints.llava(tmp_path / "checkpoint", "qwen2")
    first, second = ((export_bundle(folder, precision="int4") / "decoder.onnx.data").read_bytes() for _ in range(2))
    assert first == second


def test_samples_are_spread_over_the_text():
    ids = list(range(100_000))
    found = sample(ids, 4096)
    assert found.shape == (SEQUENCES, LENGTH)
    assert int(found[-1, -1]) > 0.9 * len(ids)
    assert sample(ids, 40).shape == (SEQUENCES, 40)
    assert len(manual()) > 100_000


def test_text_too_short():
    with pytest.raises(ExportError, match="calibration text too short: 3 tokens"):
        sample([1, 2, 3], 4096)


def test_bad_calibration_folders(tmp_path):
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "a.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").mkdir()
    for folder, says in (("missing", "no such"), ("empty", "empty"), ("binary", "unreadable")):
        with pytest.raises(ExportError, match=says) as error:
            ExportOptions(str(tmp_path), precision="int4", calibrate=tmp_path / folder)
        assert "\n" not in str(error.value)


def test_folder_of_texts(tmp_path):
    (tmp_path / "b.md").write_text("second", encoding="utf-8")
    (tmp_path / "a.txt").write_text("first", encoding="utf-8")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    assert folder_text(tmp_path) == "first\n\nsecond"


def test_nothing_to_calibrate(tmp_path):
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    with pytest.raises(ExportError, match="nothing to calibrate"):
        ExportOptions(str(tmp_path), precision="int8", calibrate=tmp_path)
