"""Facts about the machine this runs on: processor, memory, execution providers, and the packages that matter here."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

CPU_FEATURES = {
    "avx2": "avx2",
    "avx512": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "amx_int8": "amx_int8",
    "f16c": "f16c",
    "dotprod": "asimddp",
    "i8mm": "i8mm",
    "sve": "sve",
}
"""Instruction sets that decide how fast int8 and float kernels are: our name, and Linux's flag (x86, then Arm)."""

PACKAGES = {
    "runtime": ("edgevlm", "edgevlm-runtime", "numpy", "tokenizers", "pillow", "jinja2", "msgspec"),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "engines": ("openvino",),
    "export": ("edgevlm-export", "torch", "transformers", "safetensors", "onnx", "onnx-ir", "onnxscript"),
}
"""Distributions by what they are for."""


@dataclass(frozen=True, slots=True)
class Processor:
    """The CPU."""

    name: str
    """As the operating system calls it."""
    architecture: str
    """"x86_64", "aarch64", ..."""
    physical_cores: int
    """As many threads as a graph gets by default."""
    usable_cores: int
    """Logical cores this process may run on."""
    features: tuple[str, ...] | None
    """Instruction sets that decide how fast kernels are; null where the operating system does not tell."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Main memory, in bytes."""

    total: int
    """What is built in."""
    available: int
    """What programs can still get."""


@dataclass(frozen=True, slots=True)
class ProviderState:
    """Whether one execution provider works here."""

    name: str
    """ONNX Runtime's name for it."""
    loads: bool
    """Whether a trivial graph runs on it."""
    detail: str = ""
    """Why not, in one line."""


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Processor:
    """The CPU of this machine; `cpuinfo` is Linux's description of it."""
    fields = _first_core(cpuinfo)
    flags = fields.get("flags", fields.get("Features"))
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Processor(
        name=fields.get("model name") or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        physical_cores=psutil.cpu_count(logical=False) or usable,
        usable_cores=usable,
        features=None if flags is None else tuple(n for n, flag in CPU_FEATURES.items() if flag in flags.split()),
    )


def memory() -> Memory:
    """Main memory of this machine."""
    found = psutil.virtual_memory()
    return Memory(total=found.total, available=found.available)


def package_versions() -> dict[str, str | None]:
    """Installed version of every distribution in `PACKAGES`; None where it is not installed."""
    return {name: _version(name) for group in PACKAGES.values() for name in group}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _first_core(cpuinfo: Path) -> dict[str, str]:
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n", 1)[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}
