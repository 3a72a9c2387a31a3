"""Execution providers of onnxruntime: their names, what to install, which of them works here."""

from __future__ import annotations

import base64
import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevlm_runtime.engines.base import AS_ASKED
from edgevlm_runtime.errors import ProviderError, one_line
from edgevlm_runtime.installing import pip_replace

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
PROVIDERS = {
    "cpu": CPU,
    "cuda": CUDA,
    "tensorrt": TENSORRT,
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "dml": "DmlExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "qnn": "QNNExecutionProvider",
}
"""Short name to onnxruntime's own."""
AUTO = "auto"
PREFERRED = ("cuda",)
"""What "auto" tries before the CPU, best first: providers that give the CPU's answers wherever they load. One
that cannot load the bundle's graphs gives way to the CPU as well (`Engine.fallback`)."""
DEVICES = {CUDA: "cuda", TENSORRT: "cuda"}
"""Providers with memory of their own, by onnxruntime's name of that memory."""
_PACKAGES = {
    CUDA: ("onnxruntime-gpu", ", with a CUDA driver"),
    TENSORRT: ("onnxruntime-gpu", " and TensorRT 10"),
    "OpenVINOExecutionProvider": ("onnxruntime-openvino", ""),
    "DmlExecutionProvider": ("onnxruntime-directml", ""),
    "QNNExecutionProvider": ("onnxruntime-qnn", ""),
}
"""The package that has a provider, and what else it takes."""
_LIBRARIES = {CUDA: "onnxruntime_providers_cuda", TENSORRT: "onnxruntime_providers_tensorrt"}
_NOT_FOUND = re.compile(r"([\w.+-]+): cannot open shared object file")
_PROBE = "CAg6MwoMCgF4EgF5IgRSZWx1EgFnWg8KAXgSCgoICAESBAoCCAFiDwoBeRIKCggIARIECgIIAUIECgAQDQ=="
"""y = Relu(x), x float32 [1], opset 13."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A provider by onnxruntime's name, and why it is this one, in words for the user."""

    provider: str
    reason: str


def provider_name(name: str) -> str:
    """onnxruntime's name of a provider, which may be given in short. Raises `ProviderError` for an unknown one."""
    full = PROVIDERS.get(name.lower(), name)
    if not full.endswith("ExecutionProvider"):
        raise ProviderError(f"unknown provider {name!r}: known are {AUTO}, {', '.join(PROVIDERS)}")
    return full


def choose(ort: Any, wanted: str) -> Choice:
    """The provider to use; "auto" takes the best one that loads here. Raises `ProviderError` for one that is missing
    from the installed onnxruntime, or unknown."""
    available = ort.get_available_providers()
    if wanted.lower() != AUTO:
        provider = provider_name(wanted)
        if provider not in available:
            raise ProviderError(missing(ort, provider, f"the installed onnxruntime has {', '.join(available)}"))
        return Choice(provider, AS_ASKED)
    against = []
    for name in PREFERRED:
        why_not = _obstacle(ort, PROVIDERS[name], available)
        if why_not is None:
            return Choice(PROVIDERS[name], f"auto: {name} loads here")
        against.append(f"{name} {why_not}")
    return Choice(CPU, f"auto: {', '.join(against)}")


def missing(ort: Any, provider: str, why: str) -> str:
    """The error line for a provider that was asked for; names the library it lacks, where that is the reason."""
    package, further = _PACKAGES.get(provider, ("", ""))
    hint = "install an onnxruntime that has it, or use provider='cpu'"
    if package:
        hint = f"{pip_replace('onnxruntime', package)}{further}"
    lacking = missing_library(ort, provider)
    detail = "" if lacking is None else f" ({lacking} is not on this machine, or not on the loader's path)"
    return f"provider {provider} was asked for, but {why}{detail}: {hint}"


def missing_library(ort: Any, provider: str, load: Callable[[str], object] = ctypes.CDLL) -> str | None:
    """A shared library that the provider's own needs and the loader does not find; None when it is not that."""
    stem = _LIBRARIES.get(provider)
    file = Path(ort.__file__).parent / "capi" / f"lib{stem}.so"
    if stem is None or not file.is_file():
        return None
    try:
        load(str(file))
    except OSError as error:
        found = _NOT_FOUND.search(str(error))
        return found[1] if found else None
    return None


def _obstacle(ort: Any, provider: str, available: list[str]) -> str | None:
    """Why a provider cannot be used, None when it can: a session with a trivial graph comes up on it."""
    if provider not in available:
        return "is not in the installed onnxruntime"
    try:
        session = _trivial_session(ort, provider)
    except ProviderError as error:
        return f"fails: {error}"
    if provider in session.get_providers():
        return None
    lacking = missing_library(ort, provider)
    return "does not load" if lacking is None else f"does not load ({lacking} is missing)"


def _trivial_session(ort: Any, provider: str) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(base64.b64decode(_PROBE), options, providers=[provider, CPU])
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        raise ProviderError(one_line(error)) from error
