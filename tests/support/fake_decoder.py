"""A small graph with the contract of a decoder, in the TensorRT backend over the FAKE library and GPU, and a run of it
beside numpy."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgevlm_runtime.bundle.engine_info import Profile
from edgevlm_runtime.engines.nvidia.compiled import CompiledEngine
from edgevlm_runtime.engines.nvidia.cuda import Device
from edgevlm_runtime.engines.nvidia.graph import TensorRTGraph
from edgevlm_runtime.engines.nvidia.messages import make_logger
from tests.support.fake_cuda import FakeCuda
from tests.support.fake_engines import fake_engine
from tests.support.fake_nvidia import FakeRuntime, fake_tensorrt

WIDTH, ROWS = 4, 16
PREFILL = Profile("prefill", {"sequence": (1, 4, 8), "rows": (1, 1, 8)})
DECODE = Profile("decode", {"sequence": (1, 1, 1), "rows": (1, 1, 1)})
PAST, PRESENT = "past_key_values.0.key", "present.0.key"


def make_decoder(path: Path) -> Path:
    """A graph with the contract of a decoder: appends x to the cache, answers with the cache's sum added to x."""
    value, node = helper.make_tensor_value_info, helper.make_node
    floats, ints, cache = TensorProto.FLOAT, TensorProto.INT64, [1, 1, ROWS, WIDTH]
    axes = [onnx.numpy_helper.from_array(np.array([axis]), f"axis{axis}") for axis in (1, 2)]
    nodes = [
        node("Unsqueeze", ["x", "axis1"], ["x4"]),
        node("TensorScatter", [PAST, "x4", "write_indices"], [PRESENT], axis=-2, mode="linear"),
        node("ReduceSum", [PRESENT, "axis2"], ["sum4"]),
        node("Squeeze", ["sum4", "axis1"], ["sum"]),
        node("Add", ["x", "sum"], ["all"]),
        node("Gather", ["all", "logits_rows"], ["logits"], axis=1),
    ]
    inputs = [
        value("x", floats, [1, "sequence", WIDTH]),
        value("logits_rows", ints, ["rows"]),
        value("write_indices", ints, [1]),
        value(PAST, floats, cache),
    ]
    outputs = [value("logits", floats, [1, "rows", WIDTH]), value(PRESENT, floats, cache)]
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, axes)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11), path)
    return path


def load(decoder: Path, cuda: FakeCuda | None = None, cuda_graph: bool = False, **about: object) -> SimpleNamespace:
    """The graph in the backend, with the fakes behind it in reach."""
    cuda = cuda or FakeCuda()
    module = fake_tensorrt(cuda, own_graphs=bool(about.pop("own_graphs", False)))
    device, logger = Device(cuda), make_logger(module)
    runtime = FakeRuntime(cuda, logger)
    runtime.engine_host_code_allowed = False
    engine = runtime.deserialize_cuda_engine(fake_engine(decoder, (PREFILL, DECODE), **about))
    graph = TensorRTGraph(CompiledEngine(module, engine, "decoder.engine", device, logger, cuda_graph=cuda_graph))
    return SimpleNamespace(graph=graph, engine=engine, cuda=cuda, device=device)


class Run:
    """A binding with a cache, and numpy's own idea of what must come out."""

    def __init__(self, made: SimpleNamespace) -> None:
        self.cache = made.graph.allocate((1, 1, ROWS, WIDTH), np.float32)
        self.binding = made.graph.binding()
        self.binding.bind_cache(PAST, PRESENT, self.cache)
        self.index = np.zeros(1, np.int64)
        self.binding.bind_input("write_indices", self.index)
        self.expected_cache = np.zeros((1, 1, ROWS, WIDTH), np.float32)

    def bind(self, x: np.ndarray, rows: list[int]) -> np.ndarray:
        self.x, self.rows = x, rows
        self.logits = np.full((1, len(rows), WIDTH), np.nan, np.float32)
        self.binding.bind_input("x", x)
        self.binding.bind_input("logits_rows", np.array(rows))
        self.binding.bind_output("logits", self.logits)
        return self.logits

    def check(self) -> None:
        """Run, and compare logits and cache with numpy."""
        place = int(self.index[0])
        self.binding.run()
        self.expected_cache[:, :, place : place + self.x.shape[1]] = self.x
        expected = (self.x + self.expected_cache.sum(axis=2))[:, self.rows]
        np.testing.assert_allclose(self.logits, expected, rtol=1e-6)
        np.testing.assert_array_equal(self.cache.host(), self.expected_cache)
        self.index[0] = place + self.x.shape[1]


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)
