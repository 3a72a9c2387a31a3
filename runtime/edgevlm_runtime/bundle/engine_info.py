"""The manifest's part about engines compiled ahead of time; see `edgevlm_runtime.bundle.manifest`."""

from __future__ import annotations

import platform
from dataclasses import dataclass


def this_platform() -> str:
    """Operating system and machine, as `EngineInfo.platform` has them: "linux-x86_64"."""
    return f"{platform.system().lower()}-{platform.machine().lower()}"


@dataclass(frozen=True, slots=True)
class Profile:
    """Sizes that an engine built ahead of time is to be fast for: dynamic dimension to (smallest, usual, largest)."""

    name: str
    """What the engine is to be fast for: "prefill" or "decode" where it is the decoder's."""
    sizes: dict[str, tuple[int, int, int]]
    """By dimension: the smallest, the usual and the largest."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """One graph compiled ahead of time (`edgevlm compile`); digest and size of its file are in `Manifest.files`."""

    graph: str
    """A key of `Manifest.graphs`."""
    target: str
    """"tensorrt" or "tensorrt-rtx"."""
    file: str
    module_version: str
    """Of the library that built it; another version refuses it."""
    compute_capabilities: tuple[int, ...]
    """GPUs it runs on: 86 stands for SM 8.6."""
    platform: str
    """Operating system and machine it was built on and for (`this_platform`); another refuses it."""
    profiles: tuple[Profile, ...]
    """In the engine's own order; none for a graph of fixed shapes."""
    device_memory_bytes: int | None = None
    """What the builder says a run needs beside weights, inputs and outputs; None where it does not say."""
    weight_bytes: int | None = None
