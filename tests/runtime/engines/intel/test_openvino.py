"""OpenVINO runs vision encoder and projector as ONNX Runtime does, and says which graphs it cannot run, and why."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

import edgevlm_runtime
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.checks.engines import difference
from edgevlm_runtime.checks.selftest import run_self_test
from edgevlm_runtime.engines import make_engine
from edgevlm_runtime.engines.base import GraphRequest
from edgevlm_runtime.engines.intel.library import import_openvino
from edgevlm_runtime.errors import BundleError, EdgeVLMError, ProviderError
from edgevlm_runtime.options import RuntimeOptions
from tests.support.graphs import alone

if find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)

Picture = Callable[[int], Image.Image]
BOTH = "vision_encoder=openvino,projector=openvino"


def embeddings(vlm: edgevlm_runtime.VLM, picture: Image.Image) -> NDArray[np.float32]:
    return vlm.pipeline.encoder.compute(vlm.pipeline.prepare(picture)).embeddings


def test_float_graphs_are_those_of_onnxruntime(handmade_bundle: Path, picture: Picture) -> None:
    ours, theirs = (edgevlm_runtime.load(handmade_bundle, threads=1, engine=words) for words in ("ort", BOTH))
    for number in range(3):
        expected = embeddings(ours, picture(number))
        assert np.allclose(embeddings(theirs, picture(number)), expected, rtol=1e-4, atol=1e-4)
        assert theirs.ask(picture(number), "what?").token_ids == ours.ask(picture(number), "what?").token_ids
    assert "openvino" in theirs.engine.identity
    assert theirs.engine.identity.startswith("vision_encoder, projector: openvino")


def test_an_exported_bundle_passes_its_self_test(tiny_bundle: Path) -> None:
    result = run_self_test(edgevlm_runtime.load(tiny_bundle, engine=BOTH))
    assert result.passed, result
    assert result.embeddings_max_abs < 0.01 * result.tolerance


def test_int8_graphs_are_close(tiny_checkpoint: Path, export_bundle: Callable[..., Path], picture: Picture) -> None:
    """Both round what they multiply, each in its own way: neither is farther from float than twice the other."""
    exact, rounded = export_bundle(tiny_checkpoint), export_bundle(tiny_checkpoint, precision="int8")
    wanted = embeddings(edgevlm_runtime.load(exact, engine="ort"), picture(1))
    ours, theirs = (embeddings(edgevlm_runtime.load(rounded, engine=words), picture(1)) for words in ("ort", BOTH))
    (_, far), (cosine, near) = (difference({"x": one}, {"x": wanted}) for one in (ours, theirs))
    assert cosine > 0.99
    assert 0 < near < 2 * far


def test_inputs_of_any_batch_and_layout(handmade_bundle: Path) -> None:
    bundle = Bundle.open(handmade_bundle)
    ours, theirs = (
        make_engine(RuntimeOptions(engine=name, threads=1)).load(GraphRequest(bundle, "vision_encoder"))
        for name in ("ort", "openvino")
    )
    assert {name: (port.dtype, len(port.shape)) for name, port in theirs.inputs.items()} == {
        name: (port.dtype, len(port.shape)) for name, port in ours.inputs.items()
    }
    assert theirs.outputs["image_features"].shape[1:] == ours.outputs["image_features"].shape[1:]
    assert theirs.outputs["image_features"].shape[0] is None
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 16, 3), dtype=np.uint8)[:, :, ::2]
    assert not pixels.flags.c_contiguous
    for count in (1, 3, 2):
        feeds = {"pixels": pixels[:count]}
        expected = ours.run({"pixels": np.ascontiguousarray(pixels[:count])})["image_features"]
        assert np.allclose(theirs.run(feeds)["image_features"], expected, rtol=1e-4, atol=1e-4)


def test_outputs_are_the_callers_own_from_any_thread(handmade_bundle: Path) -> None:
    graph = make_engine(RuntimeOptions(engine="openvino", threads=1)).load(
        GraphRequest(Bundle.open(handmade_bundle), "vision_encoder")
    )
    inputs = [np.full((1, 8, 8, 3), value, np.uint8) for value in range(0, 250, 10)]
    alone_ = [graph.run({"pixels": one})["image_features"] for one in inputs]
    assert len({one.tobytes() for one in alone_}) == len(inputs), "none is overwritten by the next"
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda one: graph.run({"pixels": one})["image_features"], inputs))
    assert all(np.array_equal(one, other) for one, other in zip(alone_, together, strict=True))


def test_a_failing_run_is_one_line(handmade_bundle: Path) -> None:
    graph = make_engine(RuntimeOptions(engine="openvino", threads=1)).load(
        GraphRequest(Bundle.open(handmade_bundle), "vision_encoder")
    )
    with pytest.raises(EdgeVLMError, match=r"^vision_encoder\.onnx failed: ") as error:
        graph.run({"pixels": np.zeros((1, 8, 9, 3), np.uint8)})
    assert "\n" not in str(error.value)


def test_a_decoder_is_refused(handmade_bundle: Path) -> None:
    for words in ("openvino", "decoder=openvino"):
        with pytest.raises(ProviderError, match=r"^decoder\.onnx: .*KV cache.*: run it with --engine ort$"):
            edgevlm_runtime.load(handmade_bundle, engine=words)


def graph_of(folder: Path, operator: str, domain: str) -> GraphRequest:
    value = helper.make_tensor_value_info
    node = helper.make_node(operator, ["x"], ["y"], domain=domain)
    ports = [[value(name, TensorProto.FLOAT, ["N", 4])] for name in ("x", "y")]
    model = helper.make_model(
        helper.make_graph([node], "g", *ports),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("acme", 1)],
        ir_version=10,
    )
    onnx.save(model, folder / "g.onnx")
    return alone(folder / "g.onnx")


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    engine = make_engine(RuntimeOptions(engine="openvino"))
    request = graph_of(tmp_path, "Steam", "acme")
    with pytest.raises(ProviderError, match=r"^openvino has no acme\.Steam of g\.onnx: run it with --engine ort$"):
        engine.load(request)


def test_a_file_that_is_no_graph(tmp_path: Path) -> None:
    engine = make_engine(RuntimeOptions(engine="openvino"))
    request = graph_of(tmp_path, "Relu", "")
    assert np.array_equal(engine.load(request).run({"x": np.float32([[-1, 2, -3, 4]])})["y"], [[0, 2, 0, 4]])
    request.path.write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"^openvino cannot load g\.onnx: ") as error:
        engine.load(request)
    assert "\n" not in str(error.value)
    request.path.unlink()
    with pytest.raises(BundleError, match="no graph file"):
        engine.load(request)


class Core:
    """What OpenVINO says of a machine with an integrated GPU."""

    available_devices = ("CPU", "GPU")

    def get_property(self, device: str, name: str) -> list[str]:
        assert name == "OPTIMIZATION_CAPABILITIES"
        return {"CPU": ["FP32", "INT8"], "GPU": ["FP32", "FP16", "INT8"]}[device]


@pytest.fixture
def other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_openvino(), "Core", Core)


@pytest.mark.usefixtures("other_machine")
def test_devices_and_precisions_that_are_not_here() -> None:
    def made(words: str) -> Any:
        return make_engine(RuntimeOptions(engine=words))

    assert made("openvino:GPU:f16").identity.endswith(" GPU f16")
    assert made("openvino").variants == ("openvino:GPU", "openvino:GPU:f16")
    with pytest.raises(ProviderError, match="openvino finds no NPU here: it has CPU, GPU"):
        made("openvino:NPU")
    with pytest.raises(ProviderError, match="openvino's CPU does not compute in bf16 here: it has f32"):
        made("openvino:bf16")
    with pytest.raises(ProviderError, match="openvino:fast: neither a device"):
        made("openvino:fast")


def test_threads_and_precision_are_what_was_asked_for(handmade_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core_type = import_openvino().Core
    seen = []
    real = core_type.compile_model

    def compile_model(core: Any, *arguments: Any) -> Any:
        compiled = real(core, *arguments)
        names = ("INFERENCE_NUM_THREADS", "INFERENCE_PRECISION_HINT", "ENABLE_CPU_PINNING", "NUM_STREAMS")
        seen.append([compiled.get_property(name) for name in names])
        return compiled

    monkeypatch.setattr(core_type, "compile_model", compile_model)
    edgevlm_runtime.load(handmade_bundle, threads=1, engine=BOTH)
    assert [(one[0], one[1].to_string(), one[2], one[3]) for one in seen] == [(1, "f32", False, 1)] * 2
