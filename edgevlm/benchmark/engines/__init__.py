"""Engines by name: each file of this folder but `base` is one."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from edgevlm.benchmark.engines.base import Engine, Spec
from edgevlm.benchmark.workload import Task
from edgevlm_runtime.errors import EdgeVLMError

ENGINES = ("edgevlm", "pytorch", "pytorch_compiled")


def load_engine(spec: Spec, task: Task) -> Engine:
    """Load what `spec` names. Raises `EdgeVLMError` for an unknown engine, and what the engine raises."""
    return cast(Engine, import_module(_module(spec.engine)).load(spec, task))


def imports_of(engine: str) -> str:
    """Modules that a process imports before it can load this engine, comma-separated."""
    return str(import_module(_module(engine)).IMPORTS)


def _module(engine: str) -> str:
    if engine not in ENGINES:
        raise EdgeVLMError(f"unknown engine: {engine}: known are {', '.join(ENGINES)}")
    return f"edgevlm.benchmark.engines.{engine}"
