"""Rotations change no output: every kind of decoder, tied and untied heads, against transformers in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForImageTextToText

from edgevlm_export.checkpoints import checkpoint, skeleton
from edgevlm_export.checkpoints.weights.ties import tied_weights
from edgevlm_export.families.decoder import Wiring, decoder_source
from edgevlm_export.families.text_config import kv_shape
from edgevlm_export.graphs import passes
from edgevlm_export.graphs.edit import insert_before
from edgevlm_export.graphs.trace import trace
from edgevlm_export.graphs.transforms import get_transform
from edgevlm_export.graphs.transforms.edits import Edits, NotApplicable
from edgevlm_export.graphs.transforms.orthogonal import Orthogonal
from edgevlm_export.planning.graph_plan import plan_graph
from edgevlm_export.precision.plan import GraphPrecision
from edgevlm_export.writing.writer import write_graph
from edgevlm_runtime.errors import ExportError
from tests.support import checkpoints
from tests.support.operators import run_decoder

ALL = ("rotate-residual", "rotate-values", "rotate-product")


@given(width=st.integers(1, 700))
@settings(max_examples=40, deadline=None)
def test_orthogonal(width):
    """Q Q^T = 1, and Q's entries are nearly even."""
    rotation = Orthogonal(width)
    matrix = rotation.apply(torch.eye(width))
    torch.testing.assert_close(matrix @ matrix.t(), torch.eye(width), atol=1e-5, rtol=0)
    torch.testing.assert_close(rotation.undo(matrix), torch.eye(width), atol=1e-5, rtol=0)
    assert float(matrix.abs().max()) <= (2 / width) ** 0.5 * 1.0001


@pytest.mark.parametrize("width", [576, 896, 2048, 4096])
def test_orthogonal_is_cheap(width):
    """Two products with far smaller matrices than width x width."""
    a, b = Orthogonal(width).shape
    assert a * b == width
    assert a + b <= width / 8


def _planned(folder: Path, model, transforms: tuple[str, ...], fmt: str = "fp32", roles=None):
    text = model.config.get_text_config()
    source = decoder_source(model, model.model.language_model, model.lm_head, text, context=64, wiring=Wiring())
    ties = tied_weights(model)
    kept = set(ties) | set(ties.values())
    precision = GraphPrecision(fmt, roles=roles or {}, transforms=transforms)
    return plan_graph("decoder", source, model, precision, kept)


def _logits(folder: Path, out: Path, embeddings: np.ndarray, transforms: tuple[str, ...], **options):
    model = skeleton.build(checkpoint.load_config(folder))
    plan = _planned(folder, model, transforms, **options)
    out.mkdir()
    write_graph(plan, out, checkpoint.open_weights(folder, model), lambda count: None)
    kv = kv_shape(model.config.get_text_config())
    return plan, run_decoder(out / "decoder.onnx", embeddings, kv.kv_heads, kv.head_dim)


def _reference(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings [1, S, hidden] with one channel that stands out, and transformers' logits [S, vocab]."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    embeddings = torch.randn(
        1, 11, model.config.get_text_config().hidden_size, generator=torch.Generator().manual_seed(2)
    )
    embeddings[..., 3] *= 30
    with torch.no_grad():
        return embeddings.numpy(), model(inputs_embeds=embeddings).logits[0].numpy()


@pytest.mark.parametrize("decoder", ["llama3-rope", "qwen2-tied", "qwen3", "gemma", "phi3"])
def test_same_function(decoder, tmp_path):
    folder = checkpoints.llava(tmp_path / "checkpoint", decoder)
    embeddings, wanted = _reference(folder)
    plan, found = _logits(folder, tmp_path / "rotated", embeddings, ALL)
    assert plan.transforms == ALL, "also where values come out of one projection with queries and keys (phi3)"
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_rotation_makes_int8_more_faithful(tmp_path):
    """Where one channel stands out, as it does in trained models."""
    folder = checkpoints.llava(tmp_path / "checkpoint", "qwen2")
    embeddings, wanted = _reference(folder)

    def error(name: str, transforms: tuple[str, ...]) -> float:
        _, found = _logits(folder, tmp_path / name, embeddings, transforms, fmt="int8")
        return float(np.linalg.norm(found - wanted))

    assert error("rotated", ALL) < 0.8 * error("plain", ())


@pytest.mark.parametrize("transforms", [(), ("rotate-product",)])
def test_roles(tmp_path, transforms):
    """The head and the layer after the gated product are found, whatever they are called, rotated or not."""
    model = skeleton.build(checkpoint.load_config(checkpoints.llava(tmp_path / "checkpoint", "gemma")))
    plan = _planned(tmp_path, model, transforms, "int8", {"head": "fp16", "mlp_down": "int8b"})
    assert {name.rsplit(".", 2)[-2]: fmt for name, fmt in plan.exceptions.items()} == {
        "lm_head": "fp16",
        "down_proj": "int8b",
    }
    assert len(plan.exceptions) == model.config.get_text_config().num_hidden_layers + 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"transforms": ("spin",)}, "unknown transform: spin"),
        ({"roles": {"middle": "int8"}}, "unknown role of a layer: middle"),
        ({"roles": {"head": "int7"}}, "unknown precision: int7"),
    ],
)
def test_bad_plans(options, says):
    with pytest.raises(ExportError) as error:
        GraphPrecision("int8", **options)
    assert str(error.value).startswith(says)


def test_what_a_rotation_does_not_know_is_refused_by_name(tmp_path):
    """Something else is added to the residual stream (features of deeper layers, say), or lies behind the values."""
    model = skeleton.build(checkpoint.load_config(checkpoints.llava(tmp_path / "checkpoint", "qwen2")))
    text = model.config.get_text_config()
    source = decoder_source(model, model.model.language_model, model.lm_head, text, context=64, wiring=Wiring())
    graph = trace(source, model)
    passes.simplify(graph)
    addition = next(node for node in graph.graph if node.op_type == "Add")
    more = insert_before(addition, "Sigmoid", [addition.inputs[0]], {})
    other = insert_before(addition, "Add", [addition.inputs[0], more], {})
    addition.replace_input_with(0, other)
    attention = next(node for node in graph.graph if node.op_type == "CausalAttention")
    attention.replace_input_with(2, insert_before(attention, "Neg", [attention.inputs[2]], {}))
    before, edits = [node.op_type for node in graph.graph], Edits()
    for name, why in {"rotate-residual": "residual stream", "rotate-values": "come out of Neg"}.items():
        with pytest.raises(NotApplicable, match=why):
            get_transform(name)(graph, frozenset(), edits)
    assert [node.op_type for node in graph.graph] == before
    assert not edits.by_name
