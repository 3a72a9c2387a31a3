"""Full TensorRT and TensorRT-RTX: same API, two packages. Neither is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from edgevlm_runtime.errors import ProviderError
from edgevlm_runtime.installing import pip_install


@dataclass(frozen=True, slots=True)
class Library:
    """One of the two; `name` is the target of `edgevlm compile` and the name of the runtime's engine."""

    name: str
    module: str
    packages: tuple[str, ...]
    """What to install."""


TENSORRT = Library("tensorrt", "tensorrt", ("tensorrt", "cuda-python"))
TENSORRT_RTX = Library("tensorrt-rtx", "tensorrt_rtx", ("tensorrt-rtx", "cuda-python"))


def import_library(library: Library) -> Any:
    """The library's module. Raises `ProviderError` with the pip line when it is missing or does not load."""
    return import_or_explain(library.module, library.packages)


def import_or_explain(name: str, packages: Sequence[str]) -> Any:
    """Module `name`. Raises `ProviderError` that says what to install, or why what is installed does not load."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name.startswith(missing):
            raise ProviderError(f"{name} is not installed: {pip_install(*packages)}") from error
        raise ProviderError(f"{name} needs the package {missing}: {pip_install(*packages)}") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise ProviderError(f"{name} is installed and does not load: {' '.join(str(error).split())}") from error
