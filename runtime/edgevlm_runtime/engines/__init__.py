"""Engines by name: each file of this folder but `base` and the helpers is one."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from edgevlm_runtime.engines.base import Engine
from edgevlm_runtime.errors import ProviderError
from edgevlm_runtime.options import RuntimeOptions

ENGINES = ("ort",)
"""Files of this folder that have a `make_engine`."""


def make_engine(options: RuntimeOptions) -> Engine:
    """The engine named in the options. Raises `ProviderError` for a name that is not one, or when it cannot load."""
    if options.engine not in ENGINES:
        raise ProviderError(f"unknown engine {options.engine!r}: known are {', '.join(ENGINES)}")
    module = import_module(f"edgevlm_runtime.engines.{options.engine}")
    return cast(Engine, module.make_engine(options))
