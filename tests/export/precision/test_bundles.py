"""`--int8` and `--int4` bundles: how faithful, how small, and that different images still look different."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from edgevlm_export.precision.plans import choose
from edgevlm_runtime import load
from edgevlm_runtime.bundle.manifest import MANIFEST_NAME, decode
from edgevlm_runtime.errors import ExportError
from tests.support import checkpoints


def _pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 40, 3)).astype(np.uint8) // size) for size in (1, 3)]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, export_bundle):
    folder = checkpoints.llava(tmp_path_factory.mktemp("tied") / "tied", "qwen2-tied")
    return folder, {name: export_bundle(folder, precision=name) for name in ("fp32", "int8", "int4")}


def _embeddings(bundle, picture) -> np.ndarray:
    model = load(bundle, verify="size")
    return np.asarray(model.pipeline.encoder.encode(model.pipeline.prepare(picture)).embeddings)


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_image_embeddings(bundles, name):
    """Close to float32's, and as far from each other for different images."""
    plain, small = ([_embeddings(bundles[1][key], picture) for picture in _pictures()] for key in ("fp32", name))
    for wanted, found in zip(plain, small, strict=True):
        assert float((wanted * found).sum() / np.linalg.norm(wanted) / np.linalg.norm(found)) > 0.999
    apart, apart_small = (float(np.linalg.norm(pair[0] - pair[1])) for pair in (plain, small))
    assert apart_small == pytest.approx(apart, rel=0.1)
    assert apart_small > 0


@pytest.mark.parametrize(("name", "most"), [("int8", 0.55), ("int4", 0.5)])
def test_smaller(bundles, name, most):
    """The weights; tiny graphs are mostly nodes. The head in 8 bits is a third of this decoder."""
    sizes = {key: (bundles[1][key] / "decoder.onnx.data").stat().st_size for key in ("fp32", name)}
    assert sizes[name] < most * sizes["fp32"]


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_tied_table_is_read_from_the_head(bundles, name):
    """One copy on disk, and the rows that come out of it are the checkpoint's within half a step."""
    folder, made = bundles
    table = decode((made[name] / MANIFEST_NAME).read_bytes(), "manifest").decoder.embedding
    assert table.file == "decoder.onnx.data"
    assert not (made[name] / "embeddings.data").exists()
    weights = load_file(folder / "model.safetensors")
    wanted = next(value for key, value in weights.items() if key.endswith("embed_tokens.weight")).numpy()
    model = load(made[name], verify="size")
    found = np.empty_like(wanted)
    model.pipeline.decoder.embeddings.gather(np.arange(len(wanted)), found)
    step = np.abs(wanted).max(axis=1, keepdims=True) / 127
    assert (np.abs(found - wanted) <= step / 2 * 1.01).all()
    one = np.empty_like(wanted[0])
    model.pipeline.decoder.embeddings.one(7, one)
    np.testing.assert_array_equal(one, found[7])


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_manifest_says_how_layers_are_held(bundles, name):
    graph = decode((bundles[1][name] / MANIFEST_NAME).read_bytes(), "manifest").graphs["decoder"]
    assert (graph.precision, graph.transforms) == (name, choose(name).decoder.transforms)
    down = [fmt for layer, fmt in graph.exceptions.items() if "down_proj" in layer]
    head = [fmt for layer, fmt in graph.exceptions.items() if "down_proj" not in layer]
    assert head == ["int8b"]
    assert down == {"int8": [], "int4": ["int8"] * 2}[name]


def test_int8_is_held_to_its_target(bundles):
    """The default needs no lifting here; what was measured is in the manifest."""
    found = decode((bundles[1]["int8"] / MANIFEST_NAME).read_bytes(), "manifest").fidelity
    assert found is not None
    assert 0 < found.found == found.before < found.most == 0.02
    assert found.positions > 500
    assert found.lifted == ()


@pytest.mark.parametrize("table", ["fp16", "int8b", "int4", "int4:symmetric", "int4:block=64"])
def test_every_table_format_is_read_as_it_was_written(table, tmp_path_factory, export_bundle):
    """An untied decoder held uniformly: the table of embeddings is a file of its own."""
    folder = checkpoints.llava(tmp_path_factory.mktemp("untied") / "untied", "qwen2")
    model = load(export_bundle(folder, decoder=table), verify="size")
    weights = load_file(folder / "model.safetensors")
    wanted = next(value for key, value in weights.items() if key.endswith("embed_tokens.weight")).numpy()
    found = np.empty_like(wanted)
    model.pipeline.decoder.embeddings.gather(np.arange(len(wanted)), found)
    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    assert error < {"fp16": 1e-3, "int8b": 0.01}.get(table, 0.15)


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_logits_follow_transformers(bundles, name):
    """Mean KL divergence of the next token from the PyTorch model's, over every position of a prompt."""
    from transformers import AutoModelForImageTextToText

    folder, made = bundles
    model = load(made[name], verify="size")
    prompt = [{"role": "user", "content": [{"type": "text", "text": "is there a scratch in the picture? describe it"}]}]
    sequence = model.pipeline.assemble(prompt, [], 256)
    context = model.pipeline.new_context(256)
    found = torch.log_softmax(torch.from_numpy(context.score(sequence, lambda image: None)), -1)
    reference = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = reference(input_ids=torch.from_numpy(sequence.token_ids)[None]).logits[0]
    wanted = torch.log_softmax(logits, -1)
    divergence = float((wanted.exp() * (wanted - found)).sum(-1).mean())
    assert divergence < {"int8": 0.005, "int4": 0.05}[name]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"precision": "int3"}, "unknown precision: int3"),
        ({"precision": "int8", "vision": "w8a8"}, "unknown precision of the vision_encoder: w8a8"),
        ({"precision": "int8", "decoder": "int4:block=7"}, "block size 7 is not supported"),
    ],
)
def test_bad_choices(options, says):
    with pytest.raises(ExportError, match=r"^[^\n]+$") as error:
        choose(**options)
    assert str(error.value).startswith(says)


def test_overrides():
    """A plan's name takes that plan's graph; a format's name holds every layer."""
    plan = choose("int4", vision="fp16", decoder="int8")
    assert (plan.vision_encoder.default, plan.projector.default) == ("fp16", "int8")
    assert plan.decoder == choose("int8").decoder
    assert choose("fp32", decoder="int8b").decoder.roles == {}
    assert choose("fp32", decoder="int8b").embedding == "int8b"
