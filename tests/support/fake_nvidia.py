"""A FAKE TensorRT over the FAKE GPU of `fake_cuda`, for tests of buffer handling and error paths. Nothing is NVIDIA's.

The fake library "compiles" an ONNX graph by naming its file, and "runs" it with onnxruntime on the CPU, over the fake
GPU's memory. No claim about speed or correctness on a real GPU rests on it.
"""

from __future__ import annotations

import json
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from edgevlm_runtime.engines.ort_library import ort as onnxruntime
from tests.support.fake_cuda import FakeCuda

VERSION = "0.0-fake"


class FakeLogger:
    """Base class of the loggers that edgevlm derives."""

    Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3)


def fake_tensorrt(cuda: FakeCuda, name: str = "tensorrt_rtx", own_graphs: bool = False) -> ModuleType:
    """Stands in for `tensorrt_rtx` or `tensorrt`; `own_graphs`: the library makes CUDA graphs inside, as RTX does."""
    module = ModuleType(name)
    module.__version__ = VERSION
    module.ILogger = FakeLogger
    module.TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
    module.TensorLocation = SimpleNamespace(DEVICE="device", HOST="host")
    module.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")
    if own_graphs:
        module.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
    module.Runtime = lambda logger: FakeRuntime(cuda, logger)
    module.cuda = cuda
    return module


class FakeRuntime:
    def __init__(self, cuda: FakeCuda, logger: Any) -> None:
        self.cuda, self.logger = cuda, logger
        self.engine_host_code_allowed = True

    def deserialize_cuda_engine(self, data: bytes):
        assert self.engine_host_code_allowed is False
        if not data.startswith(b"{"):
            self.logger.log(FakeLogger.Severity.ERROR, "magic tag does not\nmatch")
            return None
        return FakeEngine(self.cuda, json.loads(data))


class FakeEngine:
    """Runs the ONNX graph named in the engine file."""

    def __init__(self, cuda: FakeCuda, about: dict[str, Any]) -> None:
        self.cuda, self.about = cuda, about
        self.session = onnxruntime.InferenceSession(about["onnx"], providers=["CPUExecutionProvider"])
        self.ports = {port.name: port for port in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.outputs = [port.name for port in self.session.get_outputs()]
        self.num_io_tensors = len(self.ports)
        self.num_optimization_profiles = len(about["profiles"])
        self.contexts: list[FakeContext] = []
        self.in_place = about.get("in_place", True)

    def get_tensor_name(self, i):
        return list(self.ports)[i]

    def get_tensor_dtype(self, name):
        kinds = {"float": "FLOAT", "float16": "HALF", "uint8": "UINT8", "int64": "INT64", "bool": "BOOL"}
        return SimpleNamespace(name=kinds[self.ports[name].type[7:-1]])

    def get_tensor_mode(self, name):
        return "output" if name in self.outputs else "input"

    def get_tensor_location(self, name):
        return self.about.get("location", "device")

    def get_tensor_shape(self, name):
        return tuple(size if isinstance(size, int) else -1 for size in self.ports[name].shape)

    def get_tensor_profile_shape(self, name, index):
        sizes = self.about["profiles"][index]
        shape = self.ports[name].shape
        return [tuple(sizes[d][k] if isinstance(d, str) else d for d in shape) for k in range(3)]

    def get_aliased_input_tensor(self, name):
        past = name.replace("present.", "past_key_values.")
        return past if self.in_place and past in self.ports and past != name else None

    def get_device_memory_size_for_profile_v2(self, index):
        return 1000 * (index + 1)

    def create_runtime_config(self):
        config = SimpleNamespace(cuda_graph_strategy=None, strategy=None)
        config.set_execution_context_allocation_strategy = lambda strategy: setattr(config, "strategy", strategy)
        return config

    def create_execution_context(self, config):
        self.contexts.append(FakeContext(self, config))
        return self.contexts[-1]


class FakeContext:
    def __init__(self, engine: FakeEngine, config: Any) -> None:
        self.engine, self.config, self.runs = engine, config, 0
        self.profile: int | None = None
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch: tuple[int, int] | None = None
        self.fails = False

    def set_optimization_profile_async(self, index, stream):
        self.profile = index
        return True

    def set_device_memory(self, address, nbytes):
        self.engine.cuda.block(address, nbytes)
        self.scratch = (address, nbytes)

    def set_input_shape(self, name, shape):
        smallest, _, largest = self.engine.get_tensor_profile_shape(name, self.profile)
        self.shapes[name] = tuple(shape)
        return all(low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True))

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def get_tensor_shape(self, name):
        sizes = {
            dim: size
            for given, shape in self.shapes.items()
            for dim, size in zip(self.engine.ports[given].shape, shape, strict=True)
        }
        return tuple(d if isinstance(d, int) else sizes[d] for d in self.engine.ports[name].shape)

    def is_stream_capturable(self, stream):
        return True

    def execute_async_v3(self, stream):
        assert stream == 4711
        assert self.scratch is not None, "no scratch memory"
        assert self.scratch[1] >= self.engine.get_device_memory_size_for_profile_v2(self.profile)
        if self.fails:
            return False
        if self.engine.cuda.recording is not None:
            self.engine.cuda.recording.append(self._run)
        else:
            self._run()
        return True

    def _run(self):
        self.runs += 1
        inputs = {name: self._tensor(name).copy() for name in self.engine.ports if name not in self.engine.outputs}
        for name, value in zip(self.engine.outputs, self.engine.session.run(self.engine.outputs, inputs), strict=True):
            self._tensor(name)[...] = value

    def _tensor(self, name):
        kinds = {"FLOAT": "float32", "HALF": "float16", "UINT8": "uint8", "INT64": "int64", "BOOL": "bool"}
        dtype = np.dtype(kinds[self.engine.get_tensor_dtype(name).name])
        shape = self.shapes.get(name) or self.get_tensor_shape(name)
        return self.engine.cuda.tensor(self.addresses[name], shape, dtype)
