"""ONNX Runtime: the engine for CPUs, and for accelerators through its execution providers.

Asking for a provider that onnxruntime cannot load is an error here; onnxruntime itself would warn and use the CPU.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from edgevlm_runtime.engines.base import Array, Binding, Cache, Graph, Port
from edgevlm_runtime.engines.cores import physical_cores
from edgevlm_runtime.engines.memory import lazy_zeros
from edgevlm_runtime.errors import BundleError, EdgeVLMError, ProviderError
from edgevlm_runtime.options import RuntimeOptions

try:
    import onnxruntime as ort
except ImportError as _error:  # the extras are exclusive: both wheels own the same files
    raise ProviderError(
        "onnxruntime is not installed: pip install 'edgevlm-runtime[cpu]' (or 'edgevlm-runtime[gpu]' for NVIDIA)"
    ) from _error

log = logging.getLogger(__name__)

_SILENT = 4  # onnxruntime's "fatal": its messages also arrive as exceptions, which is where users should see them
_CPU = "CPUExecutionProvider"
_PROVIDERS = {
    "cpu": _CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "dml": "DmlExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "qnn": "QNNExecutionProvider",
}
_INSTALL = {
    "CUDAExecutionProvider": "pip uninstall onnxruntime, then pip install 'edgevlm-runtime[gpu]', with a CUDA driver",
    "TensorrtExecutionProvider": "pip uninstall onnxruntime, then pip install 'edgevlm-runtime[gpu]' and TensorRT 10",
    "OpenVINOExecutionProvider": "pip uninstall onnxruntime, then pip install onnxruntime-openvino",
    "DmlExecutionProvider": "pip uninstall onnxruntime, then pip install onnxruntime-directml",
    "QNNExecutionProvider": "pip uninstall onnxruntime, then pip install onnxruntime-qnn",
}
_CACHE_DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


def make_engine(options: RuntimeOptions) -> OrtEngine:
    """The engine for these options. Raises `ProviderError` when the provider is not in the installed onnxruntime."""
    ort.set_default_logger_severity(_SILENT)
    provider = provider_name(options.provider)
    available = ort.get_available_providers()
    if provider not in available:
        raise ProviderError(_missing(provider, f"the installed onnxruntime has {', '.join(available)}"))
    return OrtEngine(provider, options.threads or physical_cores())


def provider_name(name: str) -> str:
    """onnxruntime's name of a provider, which may be given in short. Raises `ProviderError` for an unknown one."""
    full = _PROVIDERS.get(name.lower(), name)
    if not full.endswith("ExecutionProvider"):
        raise ProviderError(f"unknown provider {name!r}: known are {', '.join(_PROVIDERS)}")
    return full


class OrtEngine:
    """Loads graphs as onnxruntime sessions on one provider (and the CPU, for what the provider cannot run)."""

    def __init__(self, provider: str, threads: int) -> None:
        self.provider = provider
        self.threads = threads
        self.identity = f"onnxruntime {ort.__version__} {provider}"

    def load(self, path: Path, *, keeps_spinning: bool = False) -> Graph:
        """See `Engine.load`. External weights are memory-mapped by onnxruntime."""
        if not path.is_file():
            raise BundleError(f"no graph file: {path}: copy or export the bundle again")
        providers = [self.provider] if self.provider == _CPU else [self.provider, _CPU]
        options = self._session_options(keeps_spinning)
        try:
            session = ort.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime's exceptions have no common base but Exception
            raise BundleError(f"onnxruntime cannot load {path}: {_one_line(error)}") from error
        active = session.get_providers()
        if self.provider not in active:
            raise ProviderError(_missing(self.provider, f"it did not load, onnxruntime fell back to {active[0]}"))
        log.debug("loaded %s on %s, %d threads", path.name, active[0], self.threads)
        return OrtGraph(session, path.name, _CACHE_DEVICES.get(self.provider, "cpu"))

    def _session_options(self, keeps_spinning: bool) -> Any:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _SILENT
        # Each graph has its own threads: those of one must not wait busily while another runs.
        options.add_session_config_entry("session.force_spinning_stop", "0" if keeps_spinning else "1")
        return options


class OrtGraph:
    """An onnxruntime session. `run` may be called from any thread."""

    def __init__(self, session: Any, name: str, cache_device: str) -> None:
        self._session = session
        self._name = name
        self._cache_device = cache_device
        self.inputs: Mapping[str, Port] = MappingProxyType({port.name: _port(port) for port in session.get_inputs()})
        self.outputs: Mapping[str, Port] = MappingProxyType({port.name: _port(port) for port in session.get_outputs()})

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """See `Graph.run`."""
        names = list(self.outputs)
        try:
            values = self._session.run(names, dict(feeds))
        except Exception as error:
            raise EdgeVLMError(f"{self._name} failed: {_one_line(error)}") from error
        return dict(zip(names, values, strict=True))

    def binding(self) -> Binding:
        """See `Graph.binding`."""
        return OrtBinding(self._session, self._name)

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> Cache:
        """See `Graph.allocate`: host memory for the CPU provider, device memory for CUDA's."""
        if self._cache_device == "cpu":
            return HostCache(lazy_zeros(shape, dtype))
        return DeviceCache(ort.OrtValue.ortvalue_from_shape_and_type(shape, np.dtype(dtype), self._cache_device, 0))


class HostCache:
    """A cache tensor in host memory."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.shape: tuple[int, ...] = array.shape
        self.address: int = array.ctypes.data

    def host(self) -> Array:
        """The memory itself."""
        return self.array

    def bind(self, binding: Any, input_name: str, output_name: str) -> None:
        """Tie both names to the array's address."""
        place = ("cpu", 0, self.array.dtype.type, self.shape, self.address)
        binding.bind_input(input_name, *place)
        binding.bind_output(output_name, *place)


class DeviceCache:
    """A cache tensor in device memory (not run on a GPU by this project's tests)."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.shape: tuple[int, ...] = tuple(value.shape())
        self.address: int = value.data_ptr()

    def host(self) -> Array:
        """A copy."""
        copy: Array = self.value.numpy()
        return copy

    def bind(self, binding: Any, input_name: str, output_name: str) -> None:
        """Tie both names to the device buffer."""
        binding.bind_ortvalue_input(input_name, self.value)
        binding.bind_ortvalue_output(output_name, self.value)


class OrtBinding:
    """onnxruntime's IO binding over numpy buffers, by pointer: a run copies nothing in or out on the CPU."""

    def __init__(self, session: Any, name: str) -> None:
        self._session = session
        self._name = name
        self._binding = session.io_binding()
        self._alive: dict[str, object] = {}

    def bind_input(self, name: str, array: Array) -> None:
        """See `Binding.bind_input`."""
        self._alive[name] = array
        self._binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, _pointer(name, array))

    def bind_output(self, name: str, array: Array) -> None:
        """See `Binding.bind_output`."""
        self._alive[name] = array
        self._binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, _pointer(name, array))

    def bind_cache(self, input_name: str, output_name: str, cache: Cache) -> None:
        """See `Binding.bind_cache`."""
        if not isinstance(cache, (HostCache, DeviceCache)):
            raise TypeError(f"cache of another engine: {type(cache).__name__}")
        self._alive[input_name] = cache
        cache.bind(self._binding, input_name, output_name)

    def run(self) -> None:
        """See `Binding.run`."""
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise EdgeVLMError(f"{self._name} failed: {_one_line(error)}") from error


def _pointer(name: str, array: Array) -> int:
    if not array.flags.c_contiguous:
        raise ValueError(f"buffer for {name} must be C-contiguous")
    return array.ctypes.data


def _port(node: Any) -> Port:
    return Port(node.name, np.dtype(_DTYPES.get(node.type, np.void)), tuple(node.shape))


def _missing(provider: str, why: str) -> str:
    hint = _INSTALL.get(provider, "install an onnxruntime that has it, or use provider='cpu'")
    return f"provider {provider} was asked for, but {why}: {hint}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
