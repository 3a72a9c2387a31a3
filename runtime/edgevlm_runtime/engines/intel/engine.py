"""From a bundle's graph to one that OpenVINO runs: read, compiled for one device, never on another one instead.

OpenVINO reads the graphs of `ort` bundles as they are. It knows the operators of vision encoders and projectors in
float and in `int8`, where DynamicQuantizeMatMul becomes a product of stored int8 weights (`groups`). A decoder's cache
is another matter: see `NO_CACHE`.
"""

from __future__ import annotations

import logging
from typing import Any

from edgevlm_runtime.engines.assigned.words import words_of
from edgevlm_runtime.engines.base import AS_ASKED, Graph, GraphRequest
from edgevlm_runtime.engines.cores import told_threads
from edgevlm_runtime.engines.intel.graph import OpenVINOGraph
from edgevlm_runtime.engines.intel.groups import group_size
from edgevlm_runtime.engines.intel.library import import_openvino, version
from edgevlm_runtime.engines.intel.messages import missing_operators, said
from edgevlm_runtime.engines.intel.words import DEFAULT_DEVICE, PRECISIONS, Target
from edgevlm_runtime.errors import BundleError, ProviderError
from edgevlm_runtime.options import RuntimeOptions

log = logging.getLogger(__name__)

CARRIED = ("past_key_values.", "past_state.")
"""How a decoder's inputs begin that it overwrites in place."""
NO_CACHE = "openvino gives a new KV cache at every run, where the runtime's is written in place"
"""Its GroupQueryAttention joins past and new positions in a tensor of its own (2026.4), which every token copies: a
prompt is as fast as in ONNX Runtime, tokens half as fast (docs/engines.md has the figures)."""
_ORT = "run it with --engine ort"


class OpenVINOEngine:
    """Compiles graphs for one device; see `edgevlm_runtime.engines.base.Engine`."""

    def __init__(self, openvino: Any, core: Any, target: Target, threads: int) -> None:
        self.reason = AS_ASKED
        self.automatic = False
        self.target = target
        self.threads = threads
        self._core = core
        self.identity = f"openvino {version(openvino)} {target.device} {target.precision}"

    @classmethod
    def make(cls, options: RuntimeOptions) -> OpenVINOEngine:
        """Raises `ProviderError` for a device that is not here, or does not compute in the precision."""
        target = Target.parse(words_of(options.engine or ""))
        openvino = import_openvino()
        try:
            core = openvino.Core()
            _check_device(core, target)
        except RuntimeError as error:  # a plugin that does not find its driver
            raise ProviderError(f"openvino cannot use {target.device} here: {said(error)}: {_ORT}") from error
        return cls(openvino, core, target, told_threads(options.threads))

    @property
    def variants(self) -> tuple[str, ...]:
        """Other words for this engine that hold here: every device and what it computes in (`edgevlm tune`)."""
        found = [
            Target(device, precision)
            for device in self._core.available_devices
            for precision in _precisions(self._core, device)
        ]
        return tuple(f"openvino{target}" for target in found if target != self.target)

    def fallback(self, error: ProviderError) -> None:
        """See `Engine.fallback`: an engine that was asked for by name is the one that runs."""

    def load(self, request: GraphRequest) -> Graph:
        """See `Engine.load`. External weights are memory-mapped, until they are packed when the graph is compiled.

        Raises `ProviderError`, naming the operators, for a graph that OpenVINO does not know, and for a decoder.
        """
        path = request.path
        if not path.is_file():
            raise BundleError(f"no graph file: {path}: copy or export the bundle again")
        model = self._read(str(path), path.name)
        if any(name.startswith(CARRIED) for port in model.inputs for name in port.names):
            raise ProviderError(f"{path.name}: {NO_CACHE}: {_ORT}")
        try:
            compiled = self._core.compile_model(model, self.target.device, self._properties(model))
        except Exception as error:  # its exceptions have no common base but RuntimeError
            raise ProviderError(f"openvino cannot compile {path.name}: {said(error)}: {_ORT}") from error
        log.debug("loaded %s on %s, %d threads", path.name, self.identity, self.threads)
        return OpenVINOGraph(compiled, path.name)

    def _read(self, path: str, name: str) -> Any:
        try:
            return self._core.read_model(path)
        except Exception as error:  # its exceptions have no common base but RuntimeError
            operators = missing_operators(error)
            if operators:
                raise ProviderError(f"openvino has no {', '.join(operators)} of {name}: {_ORT}") from error
            raise BundleError(f"openvino cannot load {name}: {said(error)}: {_ORT}") from error

    def _properties(self, model: Any) -> dict[str, Any]:
        chosen: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": self.target.precision}
        if self.target.device.startswith(DEFAULT_DEVICE):
            # Pinned to cores, several processes (`edgevlm map`) would all wait for the first ones.
            chosen |= {"INFERENCE_NUM_THREADS": self.threads, "ENABLE_CPU_PINNING": False}
            chosen["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = str(group_size(model))
        return chosen


def _check_device(core: Any, target: Target) -> None:
    here = list(core.available_devices)
    if target.device not in here and f"{target.device}.0" not in here:
        raise ProviderError(f"openvino finds no {target.device} here: it has {', '.join(here) or 'no device'}")
    if PRECISIONS[target.precision] not in _capabilities(core, target.device):
        known = [word for word, name in PRECISIONS.items() if name in _capabilities(core, target.device)]
        raise ProviderError(
            f"openvino's {target.device} does not compute in {target.precision} here: it has {', '.join(known)}"
        )


def _precisions(core: Any, device: str) -> list[str]:
    """What a device computes in; nothing where it does not answer."""
    try:
        known = _capabilities(core, device)
    except RuntimeError as error:
        log.debug("openvino %s: %s", device, said(error))
        return []
    return [word for word, name in PRECISIONS.items() if name in known]


def _capabilities(core: Any, device: str) -> list[str]:
    return list(core.get_property(device, "OPTIMIZATION_CAPABILITIES"))
