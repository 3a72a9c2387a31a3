"""Full TensorRT and TensorRT-RTX: same API, two packages. Neither is imported before it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from edgevlm_runtime.errors import ProviderError


@dataclass(frozen=True, slots=True)
class Library:
    """One of the two; `name` is the target of `edgevlm compile` and the name of the runtime's engine."""

    name: str
    module: str
    install: str
    """The exact pip line."""


TENSORRT = Library("tensorrt", "tensorrt", "pip install tensorrt cuda-python")
TENSORRT_RTX = Library("tensorrt-rtx", "tensorrt_rtx", "pip install tensorrt-rtx cuda-python")


def import_library(library: Library) -> Any:
    """The library's module. Raises `ProviderError` with the pip line when it is missing or does not load."""
    return import_or_explain(library.module, library.install)


def import_or_explain(name: str, install: str) -> Any:
    """Module `name`. Raises `ProviderError` that says what to install, or why what is installed does not load."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name.startswith(missing):
            raise ProviderError(f"{name} is not installed: {install}") from error
        raise ProviderError(f"{name} needs the package {missing}: {install}") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise ProviderError(f"{name} is installed and does not load: {' '.join(str(error).split())}") from error
