"""The standard dialect: every kind of decoder answers like transformers, with ONNX's own operators alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn
from transformers import Qwen2Config

from edgevlm_export.graphs.dialects.standard import OPSET, check_operators
from edgevlm_export.graphs.dialects.standard import decoder as decoder_lowering
from edgevlm_export.graphs.edit import MICROSOFT
from edgevlm_export.graphs.ops import DOMAIN
from edgevlm_export.graphs.source import GraphSource, Port
from edgevlm_export.planning.profiles import profiles
from edgevlm_export.precision.plans import STANDARD_PLANS, choose
from edgevlm_runtime.decoding.decoder import DecoderRun
from edgevlm_runtime.errors import UnsupportedModel
from tests.export.parity.test_parity import CASES, MORE
from tests.support import checkpoints
from tests.support.decoders import TextModel, write_decoder

CONTEXT = 96
TOKENS = 12
HERE = ("llava-", "idefics3", "qwen2_5_vl-", "gemma3-")
ELSEWHERE = (
    *("llava-qwen2", "llava-siglip", "llava-two-layers", "qwen2_5_vl-window-4", "qwen2_5_vl-window-3"),
    *("llava-gemma2-caps-and-windows", *(name for name in CASES if name.startswith("llava-pixtral-"))),
    *("llava-phi3-longrope", "gemma3-no-window", "gemma3-groups-of-5"),
)
"""Cases whose decoder another case has, or whose whole questions are answered in this dialect by the tests in parity/,
as those of all other families are."""
FLOAT = STANDARD_PLANS["fp32"].decoder


def mixed_windows(folder: Path) -> Path:
    """A decoder whose second layer has a sliding window and whose first has none."""
    mixed = Qwen2Config(
        hidden_size=64,
        intermediate_size=112,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=640,
        vocab_size=len(checkpoints.tokenizer("<image>")),
        use_sliding_window=True,
        sliding_window=9,
        max_window_layers=1,
        bos_token_id=1,
        eos_token_id=2,
    )
    checkpoints.DECODERS["mixed"] = lambda **kw: mixed
    try:
        return checkpoints.llava(folder, decoder="mixed")
    finally:
        del checkpoints.DECODERS["mixed"]


KINDS = {name: make for name, make in CASES.items() if name.startswith(HERE) and name not in ELSEWHERE}
KINDS["mixed-windows"] = mixed_windows


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow if name in MORE else ()) for name in KINDS]
)
def decoder(request, tmp_path_factory):
    folder = KINDS[request.param](tmp_path_factory.mktemp("standard") / request.param)
    plan, run = write_decoder(folder, folder.parent / "graph", FLOAT, CONTEXT)
    return plan, run, TextModel.load(folder), folder.parent / "graph" / "decoder.onnx"


def embedded(text: TextModel, length: int, seed: int) -> np.ndarray:
    """Embeddings of random tokens, some of them random rows as images give."""
    rng = np.random.default_rng(seed)
    rows = text.embeddings.gather(rng.integers(3, 300, length)).copy()
    rows[4:9] = rng.standard_normal((5, rows.shape[1])) * rows.std()
    return rows


def fed(run: DecoderRun, text: TextModel, rows: np.ndarray, start: int, chunk: int) -> np.ndarray:
    """Logits of `rows[start:]`, in chunks, over what the cache holds up to `start`."""
    parts = []
    for first in range(start, len(rows), chunk):
        part = rows[first : first + chunk]
        places = text.positions(first, first + len(part))
        parts.append(run.forward(part, np.arange(len(part)), places))
    return np.concatenate(parts)


def test_chunks_prefix_and_greedy_tokens_like_transformers(decoder):
    _, run, text, _ = decoder
    rows = embedded(text, 33, seed=1)
    expected = text.logits(rows)
    assert np.abs(fed(run, text, rows, 0, chunk=13) - expected).max() < 1e-3
    assert expected.std() > 0.1
    other = np.concatenate([rows[:20], embedded(text, 17, seed=2)])
    run.kv.rewind(20)  # a second question behind the same images
    logits = fed(run, text, other, 20, chunk=CONTEXT)
    assert np.abs(logits - text.logits(other)[20:]).max() < 1e-3
    tokens = [int(logits[-1].argmax())]
    while len(tokens) < TOKENS:
        place = run.kv.length
        tokens.append(int(run.step(tokens[-1], text.positions(place, place + 1)).argmax()))
    assert tokens == text.greedy(other, TOKENS)


def test_only_onnx_operators(decoder):
    _, _, _, file = decoder
    model = onnx.load(file, load_external_data=False)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    assert {node.domain for node in model.graph.node} == {""}
    onnx.checker.check_model(str(file), full_check=False)
    operators = [node.op_type for node in model.graph.node]
    layers = sum(value.name.endswith(".key") for value in model.graph.input)
    assert operators.count("TensorScatter") == 2 * layers
    assert operators.count("Attention") == layers


def test_attributes_that_the_targets_lack_are_not_used(decoder):
    """TensorRT's parsers drop them without a word."""
    for node in onnx.load(decoder[3], load_external_data=False).graph.node:
        if node.op_type == "Attention":
            assert {attribute.name for attribute in node.attribute} == {"scale"}
            assert len(node.input) == 4
            assert len(node.output) == 1
        if node.op_type == "TensorScatter":
            values = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
            assert values == {"axis": -2, "mode": b"linear"}


@pytest.mark.parametrize(("name", "distance"), [("fp16", 0.02), ("int4", 1.2), ("fp8", 0.6)])
def test_other_precisions_stay_near_transformers(name, distance, tiny_checkpoint, tmp_path):
    """`distance`: of logits, as a part of their spread. The model is tiny and random, which is as hard as it gets."""
    precision = choose("fp16", decoder=name, dialect="standard").decoder
    plan, run = write_decoder(tiny_checkpoint, tmp_path / "graph", precision, CONTEXT)
    text = TextModel.load(tiny_checkpoint)
    rows = embedded(text, 24, seed=5)
    expected = text.logits(rows)
    assert 0 < np.abs(fed(run, text, rows, 0, chunk=10) - expected).max() < distance * expected.std()
    assert plan.activations == "float16"
    assert run.kv.tensors[0].host().dtype == np.float16


def test_what_a_mask_cannot_say_is_refused():
    node = ir.node("CausalAttention", [], attributes={"softcap": 30.0}, domain=DOMAIN)
    model = ir.Model(ir.Graph([], [], nodes=[node], opset_imports={"": 23}), ir_version=10)
    with pytest.raises(UnsupportedModel, match="soft-capped logits"):
        decoder_lowering.lower(model, GraphSource(nn.Identity(), (), ()))


def test_operators_of_an_engine_are_refused():
    node = ir.node("GroupQueryAttention", [], domain=MICROSOFT)
    model = ir.Model(ir.Graph([], [], nodes=[node], opset_imports={"": 23}), ir_version=10)
    with pytest.raises(UnsupportedModel, match=r"com.microsoft::GroupQueryAttention is not in ONNX's own set"):
        check_operators(model)


def test_every_dynamic_dimension_needs_a_range():
    def source(**options) -> GraphSource:
        return GraphSource(nn.Identity(), (Port("patches", torch.uint8, ("cells", 3)),), (), **options)

    with pytest.raises(
        UnsupportedModel, match="no range of sizes is known for dimension 'cells' of the vision_encoder"
    ):
        profiles("vision_encoder", source())
    assert profiles("vision_encoder", source(ranges={"cells": (1, 8, 64)}))[0].sizes == {"cells": (1, 8, 64)}
    assert profiles("vision_encoder", source(fixed={"cells": 8})) == ()
