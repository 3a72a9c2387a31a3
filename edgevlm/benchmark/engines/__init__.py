"""Engines by name: each file of this folder but `base` is one."""

from __future__ import annotations

from typing import cast

from edgevlm.benchmark.engines.base import Engine, Spec
from edgevlm.benchmark.workload import Task
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.registry import Registry

ENGINES = Registry(
    "unknown engine",
    {name: f"{__name__}.{name}" for name in ("edgevlm", "pytorch", "pytorch_compiled")},
    EdgeVLMError,
)


def load_engine(spec: Spec, task: Task) -> Engine:
    """Load what `spec` names. Raises `EdgeVLMError` for an unknown engine, and what the engine raises."""
    return cast(Engine, ENGINES.get(spec.engine).load(spec, task))


def imports_of(engine: str, task: Task) -> str:
    """Modules that a process imports before it can load this engine, comma-separated."""
    return str(ENGINES.get(engine).imports(task))
