"""The real parser: an input that it drops is found, an operator that it refuses is named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from edgevlm_export.compile import network, profiles
from edgevlm_runtime.bundle.engine_info import Profile
from edgevlm_runtime.engines.nvidia.messages import make_logger
from edgevlm_runtime.errors import ExportError

INPUTS = {
    "q": (TensorProto.FLOAT16, [1, 2, "sequence", 64]),
    "k": (TensorProto.FLOAT16, [1, 1, 256, 64]),
    "v": (TensorProto.FLOAT16, [1, 1, 256, 64]),
    "mask": (TensorProto.BOOL, [1, 1, "sequence", 256]),
}
LENGTHS = {"nonpad_kv_seqlen": (TensorProto.INT64, [1])}


def attention(path: Path, extra: dict[str, Any], fed: list[str], **attributes: Any) -> Path:
    """One Attention operator over `INPUTS` and `extra`, fed with the names in `fed`."""
    inputs = [helper.make_tensor_value_info(name, *about) for name, about in {**INPUTS, **extra}.items()]
    outputs = [helper.make_tensor_value_info("out", *INPUTS["q"])]
    node = helper.make_node("Attention", fed, ["out"], **attributes)
    graph = helper.make_graph([node], "attention", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def parse(rtx: Any, file: Path) -> tuple[Any, Any, Any]:
    logger = make_logger(rtx)
    builder = rtx.Builder(logger)
    made, parser = network.parse(rtx, builder, logger, file)
    return builder, made, parser


def test_graph_that_keeps_its_inputs(rtx: Any, tmp_path: Path) -> None:
    _, made, _ = parse(rtx, attention(tmp_path / "g.onnx", {}, list(INPUTS)))
    assert made.num_inputs == len(INPUTS)


def fake_network(inputs: list[str], layers: list[list[str | None]]) -> Any:
    """A FAKE network: the names that each layer reads; None is an optional input that is not there."""
    tensors = [[None if name is None else SimpleNamespace(name=name) for name in layer] for layer in layers]
    made = [SimpleNamespace(num_inputs=len(layer), get_input=layer.__getitem__) for layer in tensors]
    given = [SimpleNamespace(name=name) for name in inputs]
    return SimpleNamespace(
        num_inputs=len(given), get_input=given.__getitem__, num_layers=len(made), get_layer=made.__getitem__
    )


def test_inputs_that_some_layer_reads() -> None:
    network.check_inputs_consumed(fake_network(["x", "lengths"], [["x", None], ["hidden", "lengths"]]), "g.onnx")


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (["x", "lengths"], "dropped input lengths: the engine would ignore"),
        (["x", "a", "b"], "dropped 2 inputs: a, b: the engine"),
        (["a", "b", "c", "d"], "dropped 4 inputs: a, b, c ...: the engine"),
    ],
)
def test_inputs_that_no_layer_reads(inputs: list[str], said: str) -> None:
    with pytest.raises(ExportError) as error:
        network.check_inputs_consumed(fake_network(inputs, [["x", None], ["hidden"]]), "g.onnx")
    assert f"g.onnx: the parser {said}" in str(error.value)


def test_dropped_input_is_rejected(rtx: Any, tmp_path: Path) -> None:
    """The operator reads it, by the standard; the parser says nothing and leaves it out."""
    file = attention(tmp_path / "g.onnx", LENGTHS, [*INPUTS, "", "", "nonpad_kv_seqlen"])
    with pytest.raises(
        ExportError, match=r"g\.onnx: the parser dropped input nonpad_kv_seqlen: the engine would ignore"
    ):
        parse(rtx, file)


def test_input_that_the_graph_itself_ignores_is_rejected(rtx: Any, tmp_path: Path) -> None:
    extra = {**LENGTHS, "other": LENGTHS["nonpad_kv_seqlen"]}
    with pytest.raises(ExportError, match="the parser dropped 2 inputs: nonpad_kv_seqlen, other"):
        parse(rtx, attention(tmp_path / "g.onnx", extra, list(INPUTS)))


def test_what_the_parser_refuses_is_named(rtx: Any, tmp_path: Path) -> None:
    file = attention(tmp_path / "g.onnx", {}, list(INPUTS), softcap=30.0)
    with pytest.raises(ExportError) as error:
        parse(rtx, file)
    assert "tensorrt_rtx cannot compile g.onnx: Attention" in str(error.value)
    assert "softcap" in str(error.value)
    assert "\n" not in str(error.value)


def test_profiles_are_the_manifests(rtx: Any, tmp_path: Path) -> None:
    builder, made, _ = parse(rtx, attention(tmp_path / "g.onnx", {}, list(INPUTS)))
    wanted = [Profile("prefill", {"sequence": (1, 64, 128)}), Profile("decode", {"sequence": (1, 1, 1)})]
    config = builder.create_builder_config()
    assert profiles.apply(rtx, builder, config, made, wanted) == tuple(wanted)
    assert config.num_optimization_profiles == 2
    assert profiles.shapes(made.get_input(3), wanted[0]) == ((1, 1, 1, 256), (1, 1, 64, 256), (1, 1, 128, 256))


def test_dimension_without_a_range(rtx: Any, tmp_path: Path) -> None:
    builder, made, _ = parse(rtx, attention(tmp_path / "g.onnx", {}, list(INPUTS)))
    config = builder.create_builder_config()
    with pytest.raises(ExportError, match="input q: the default profile has no range for its dimension 'sequence'"):
        profiles.apply(rtx, builder, config, made, [Profile("default", {"images": (1, 1, 1)})])
    with pytest.raises(ExportError, match="input q has a free dimension, and the bundle names no profiles"):
        profiles.apply(rtx, builder, config, made, [])
