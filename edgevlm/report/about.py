"""The machine beside the figures: no figure means much without it."""

from __future__ import annotations

import platform

from edgevlm.machine import memory, package_versions, processor

SHOWN = ("edgevlm", "onnxruntime", "onnxruntime-gpu", "torch", "transformers")


def machine_summary() -> dict[str, str]:
    """Processor, memory, system and the packages that matter, in words."""
    cpu, ram = processor(), memory()
    versions = package_versions()
    return {
        "processor": f"{cpu.name}, {cpu.physical_cores} physical cores, {cpu.usable_cores} usable threads",
        "instructions": "not told by this system"
        if cpu.features is None
        else ", ".join(cpu.features) or "none of note",
        "memory": f"{ram.total / 2**30:.1f} GiB",
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version for name in SHOWN if (version := versions.get(name))},
    }
