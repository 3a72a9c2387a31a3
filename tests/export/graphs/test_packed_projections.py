"""Phi-3 packs queries, keys and values, and gate and up: no engine is asked for lists of tensors."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx_ir as ir
import pytest

from edgevlm_export.checkpoints import checkpoint, skeleton
from edgevlm_export.families.decoder import Wiring, decoder_source
from edgevlm_export.planning.graph_plan import plan_graph
from edgevlm_export.precision.plan import GraphPrecision
from tests.support import checkpoints


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    folder: Path = checkpoints.llava(tmp_path_factory.mktemp("packed") / "checkpoint", "phi3")
    return skeleton.build(checkpoint.load_config(folder))


@pytest.mark.parametrize(("dialect", "fmt"), [("ort", "int8"), ("standard", "int8")])
def test_no_sequences(model, dialect: str, fmt: str) -> None:
    text = model.config.get_text_config()
    source = decoder_source(model, model.model.language_model, model.lm_head, text, context=64, wiring=Wiring())
    graph = plan_graph("decoder", source, model, GraphPrecision(fmt, dialect=dialect)).model.graph
    assert not any(isinstance(value.type, ir.SequenceType) for node in graph for value in node.outputs)
    counts = Counter(node.op_type for node in graph)
    assert counts["Split"] == text.num_hidden_layers
    assert counts["Slice"] == 3 * text.num_hidden_layers
    assert not {"SplitToSequence", "SequenceAt", "Shape", "Concat"} & set(counts)
