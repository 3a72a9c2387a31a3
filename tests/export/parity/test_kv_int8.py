"""An int8 KV cache: scales that hold at every position, what the operator stores, and what it costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding, apply_rotary_pos_emb

import edgevlm_runtime
from edgevlm_export.api import ExportOptions
from edgevlm_export.calibration.kv_ranges import KVRanges
from edgevlm_export.precision.kv_cache import quantize_cache, stored
from edgevlm_runtime.errors import EdgeVLMError, ExportError
from tests.support import checkpoints
from tests.support.seal import write_manifest

TEXT = "describe this image what is in the picture is there a scratch "
ENGLISH = Path(__file__).parents[3] / "benchmarks" / "english.txt"
MODES = {"int8": "tensor", "int8:channel": "channel"}
CASES = {
    "llava": lambda folder: checkpoints.llava(folder, "qwen2"),
    "mrope": checkpoints.qwen2_5_vl,
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    """Little to calibrate with: a text and a picture."""
    folder = tmp_path_factory.mktemp("samples")
    (folder / "text.txt").write_text(ENGLISH.read_text(encoding="utf-8")[:4000], encoding="utf-8")
    _picture(1).save(folder / "part.png")
    return folder


@pytest.fixture(scope="module", params=[("llava", "int8"), ("llava", "int8:channel"), ("mrope", "int8")])
def exported(request, tmp_path_factory, export_bundle, samples):
    """Checkpoint, bundle with float32 weights and an int8 cache, what shares a scale."""
    case, kv = request.param
    folder = CASES[case](tmp_path_factory.mktemp("kv") / "checkpoint")
    return folder, export_bundle(folder, kv=kv, calibrate=samples), MODES[kv]


def _picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (60, 90, 3), dtype=np.uint8))


def _ids(model: edgevlm_runtime.VLM) -> np.ndarray:
    return np.array(model.tokenizer.encode(TEXT * 3, bos_token="<s>"))


def _run(model: edgevlm_runtime.VLM, ids: np.ndarray):
    """Logits [S, vocab] of the whole sequence, and the cache behind it."""
    count = ids.size
    run = model.pipeline.decoder.new_run(count)
    embeddings = np.empty((count, model.manifest.decoder.hidden_size), np.float32)
    model.pipeline.decoder.embeddings.gather(ids, embeddings)
    feeds = model.pipeline.positions.feeds((), 0, count)
    return run.forward(embeddings, np.arange(count), feeds), run.kv


def _scales(bundle) -> dict[str, torch.Tensor]:
    graph = onnx.load(bundle / "decoder.onnx", load_external_data=False).graph
    made = [one for one in graph.initializer if one.name.startswith("kv_scales.")]
    return {one.name: torch.from_numpy(onnx.numpy_helper.to_array(one).copy()) for one in made}


def test_close_to_transformers(exported):
    """Next-token distributions over a text, the cache a quarter of the size."""
    folder, bundle, shared = exported
    model = edgevlm_runtime.load(bundle, verify="size")
    kv = model.manifest.decoder.kv
    assert (kv.dtype, kv.scales) == ("int8", shared)
    ids = _ids(model)
    logits, cache = _run(model, ids)
    assert {tensor.host().dtype for tensor in cache.tensors} == {np.dtype(np.int8)}
    assert sum(tensor.host().nbytes for tensor in cache.tensors) == 2 * kv.layers * kv.kv_heads * kv.head_dim * ids.size
    reference = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        wanted = torch.log_softmax(reference(input_ids=torch.from_numpy(ids)[None]).logits[0], -1)
    found = torch.log_softmax(torch.from_numpy(logits), -1)
    divergence = (wanted.exp() * (wanted - found)).sum(-1).mean()
    assert 1e-7 < float(divergence) < 2e-3  # it is quantized, and close


def test_stores_what_transformers_would(exported):
    """Keys after rotation and values of the first layer, rounded by the scales in the graph: the very integers."""
    folder, bundle, shared = exported
    model = edgevlm_runtime.load(bundle, verify="size")
    ids = _ids(model)
    _, cache = _run(model, ids)
    scales = _scales(bundle)
    kv = model.manifest.decoder.kv
    assert scales["kv_scales.0.key"].numel() == (1 if shared == "tensor" else kv.kv_heads * kv.head_dim)
    reference = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        theirs = reference(input_ids=torch.from_numpy(ids)[None], use_cache=True).past_key_values.layers[0]
    rows = theirs.keys.shape[2]  # a window keeps the last ones alone
    for tensor, wanted, part in zip(cache.tensors, (theirs.keys, theirs.values), ("key", "value"), strict=False):
        held = tensor.host()[0, :, -rows:].astype(int)
        apart = np.abs(held - stored(wanted[0], scales[f"kv_scales.0.{part}"]))
        assert apart.max() <= 1
        assert (apart > 0).mean() < 0.01  # only what lies between two steps
        assert np.abs(held).max() > 60  # the steps are used


def test_prefix_is_rounded_like_the_operators_own(exported):
    _, bundle, _ = exported
    model = edgevlm_runtime.load(bundle, verify="size")
    prefix = model.manifest.decoder.prefix
    baked = np.load(bundle / prefix.file)
    assert baked.dtype == np.int8
    _, cache = _run(model, np.array(prefix.token_ids))
    own = np.stack([tensor.host()[0] for tensor in cache.tensors]).reshape(prefix.shape)
    assert np.abs(baked[0].astype(int) - own[0]).max() <= 1  # later layers follow the rounding of earlier ones
    assert np.abs(baked.astype(int) - own).mean() < 1


def test_scales_hold_at_every_position():
    """Keys measured at the first positions never leave the range at later ones, rotated by transformers' own code."""
    rotary = Qwen2RotaryEmbedding(Qwen2Config(hidden_size=64, num_attention_heads=1, max_position_embeddings=4096))
    keys, values = torch.randn(2, 1, 2, 8, 64, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 4, 64)

    def rotated(start: int) -> torch.Tensor:
        cos, sin = rotary(keys, torch.arange(start, start + 8)[None])
        return apply_rotary_pos_emb(keys, keys, cos, sin)[1]

    ranges = KVRanges()
    ranges.add(0, rotated(0), values)
    scale = ranges.scales(0, "channel")[0].reshape(2, 1, 64)
    by_channel = rotated(0).abs().amax((0, 2))[:, None]
    latest = torch.stack([rotated(start).abs().amax((0, 2)) for start in range(0, 4000, 50)]).amax(0)[:, None]
    assert bool((latest <= scale * 127.001).all())
    assert bool((latest > by_channel * 1.5).any())  # measured channel by channel, it would have been cut


def test_padding_does_not_count():
    ranges, real = KVRanges(), torch.tensor([[True, True, False]])
    keys = torch.ones(1, 1, 3, 4)
    keys[:, :, 2] = 100
    ranges.add(0, keys, keys, real)
    assert float(ranges.values[0].max()) == 1


def test_questions_about_images(tmp_path, export_bundle):
    """An int8 cache changes an answer's log-probability far less than another image does; what it keeps is reused."""
    folder = checkpoints.smolvlm(tmp_path / "checkpoint")
    exact, rounded = (edgevlm_runtime.load(export_bundle(folder, **how)) for how in ({}, {"kv": "int8"}))
    wanted, other = (_scores(exact, _picture(number))[0] for number in (0, 5))
    for found in _scores(rounded, _picture(0)):
        assert 0 < np.abs(found - wanted).max() < 0.5 * np.abs(other - wanted).max()


def _scores(model: edgevlm_runtime.VLM, picture: Image.Image) -> list[np.ndarray]:
    """Log-probabilities of three answers: with the prompt computed, and with all of it but the last token kept."""
    with model.session(picture) as session:
        asked = [session.choose("is there a scratch", ["yes", "no", "a scratch"]) for _ in range(2)]
    assert asked[1].prefix_tokens_reused == asked[1].prompt_tokens - 1
    return [np.array(list(choice.scores.values())) for choice in asked]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kv": "int4"}, "unknown precision of the KV cache: int4: known are fp32, int8, int8:channel"),
        ({"kv": "int8", "target": "tensorrt", "precision": "fp16"}, "KV cache in int8 is for ONNX Runtime alone"),
    ],
)
def test_bad_choices(tmp_path, options, says):
    with pytest.raises(ExportError, match=r"^[^\n]+$") as error:
        ExportOptions(str(tmp_path), **options)
    assert str(error.value).startswith(says)


def test_calibrating_the_cache_alone(tmp_path):
    """`--calibrate` has a use as soon as the cache has scales."""
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    assert ExportOptions(str(tmp_path), precision="fp32", kv="int8", calibrate=tmp_path).plan.calibrates


def test_graphs_without_the_operator():
    import onnx_ir as ir

    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 23}), ir_version=10)
    scale = torch.ones(1)
    with pytest.raises(ExportError, match="needs GroupQueryAttention in every layer"):
        quantize_cache(model, "tensor", {0: (scale, scale)})


def test_damaged_manifests(tmp_path, tiny_bundle):
    import json
    import shutil

    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    file = folder / "manifest.json"
    data = json.loads(file.read_text())
    data["decoder"]["kv"]["dtype"] = "int8"
    data["decoder"]["prefix"] = None
    write_manifest(folder, data)
    with pytest.raises(EdgeVLMError, match="holds float32, not int8 as the manifest says"):
        edgevlm_runtime.load(folder, verify="size")
