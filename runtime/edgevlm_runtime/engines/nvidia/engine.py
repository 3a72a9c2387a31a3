"""From a bundle's compiled engine to a graph that runs: the right file, unaltered, for this GPU and this library."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from edgevlm_runtime.bundle.engine_info import EngineInfo, this_platform
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.bundle.manifest import FileRecord
from edgevlm_runtime.engines.assigned.words import no_words
from edgevlm_runtime.engines.base import AS_ASKED, Graph, GraphRequest
from edgevlm_runtime.engines.nvidia.compiled import CompiledEngine
from edgevlm_runtime.engines.nvidia.cuda import Device
from edgevlm_runtime.engines.nvidia.graph import TensorRTGraph
from edgevlm_runtime.engines.nvidia.library import Library, import_library
from edgevlm_runtime.engines.nvidia.messages import make_logger
from edgevlm_runtime.errors import BundleAltered, BundleError, BundleIncomplete, ProviderError
from edgevlm_runtime.options import RuntimeOptions
from edgevlm_runtime.reading import read_bytes, why

log = logging.getLogger(__name__)


def make(options: RuntimeOptions, library: Library) -> TensorRTEngine:
    """The engine of one library. Raises `ProviderError` where the library, CUDA or the GPU is missing."""
    no_words(options.engine)
    module = import_library(library)
    return TensorRTEngine(library, module, Device.first(), cuda_graph=options.cuda_graph)


class TensorRTEngine:
    """Loads compiled engines; see `edgevlm_runtime.engines.base.Engine`."""

    def __init__(self, library: Library, module: Any, device: Device, *, cuda_graph: bool = False) -> None:
        self.reason = AS_ASKED
        self.automatic = False
        self._library = library
        self._module = module
        self._device = device
        self._cuda_graph = cuda_graph
        self._logger = make_logger(module)
        self._runtime = module.Runtime(self._logger)
        # An engine is native code for the GPU; code for the host has no business in one.
        self._runtime.engine_host_code_allowed = False
        self.identity = f"{library.module} {module.__version__} {device.name} SM {device.compute_capability}"

    def fallback(self, error: ProviderError) -> None:
        """See `Engine.fallback`: an engine that was asked for by name is the one that runs."""

    def load(self, request: GraphRequest) -> Graph:
        """See `Engine.load`: the engine that the bundle has for this graph.

        Raises `BundleError` for a bundle without one, or with one that is altered or of another version, and
        `ProviderError` for one that is compiled for other GPUs, or another operating system or machine.
        """
        bundle = request.bundle
        info = self._find(bundle, request.name)
        self._check_fits(bundle, info)
        data = read_checked(bundle.path / info.file, bundle.manifest.files[info.file])
        engine = self._runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise BundleError(f"{self._library.module} cannot load {info.file}: {self._logger.first_error()}")
        log.debug("loaded %s on %s", info.file, self._device.name)
        spins = self._cuda_graph and request.repeated
        compiled = CompiledEngine(self._module, engine, info.file, self._device, self._logger, cuda_graph=spins)
        return TensorRTGraph(compiled)

    def _find(self, bundle: Bundle, graph: str) -> EngineInfo:
        for info in bundle.manifest.engines:
            if info.target == self._library.name and info.graph == graph:
                return info
        raise BundleError(
            f"{bundle.path} has no engine for {bundle.manifest.graphs[graph].file}: "
            f"run `edgevlm compile {bundle.path} --target {self._library.name}{self._sm_option()}`"
        )

    def _check_fits(self, bundle: Bundle, info: EngineInfo) -> None:
        sm, version = self._device.compute_capability, str(self._module.__version__)
        again = f"run `edgevlm compile {bundle.path} --target {self._library.name}{self._sm_option()}`"
        if info.platform != this_platform():
            raise ProviderError(f"{info.file} is compiled for {info.platform}, this is {this_platform()}: {again}")
        if sm not in info.compute_capabilities:
            compiled = ", ".join(map(str, info.compute_capabilities))
            raise ProviderError(f"{info.file} is compiled for SM {compiled}, {self._device.name} is SM {sm}: {again}")
        if version != info.module_version:
            raise BundleError(
                f"{info.file} is compiled by {self._library.module} {info.module_version}, here is {version}: {again}"
            )

    def _sm_option(self) -> str:
        """TensorRT compiles for the GPU at hand; TensorRT-RTX is told."""
        return f" --sm {self._device.compute_capability}" if self._library.name == "tensorrt-rtx" else ""


def read_checked(file: Path, record: FileRecord) -> bytes:
    """The file's bytes, once their sha256 is the manifest's: the very bytes that were checked are what gets loaded.

    Raises `BundleIncomplete` and `BundleAltered`.
    """
    try:
        data = read_bytes(file, record.bytes)
    except OSError as error:
        raise BundleIncomplete(f"cannot read {file}: {why(error)}: compile the bundle again") from error
    if hashlib.sha256(data).hexdigest() != record.sha256.lower():
        raise BundleAltered(f"{file} is not the engine that was compiled: compile the bundle again")
    return data
