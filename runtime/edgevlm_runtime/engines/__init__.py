"""Engines by name: each file of this folder but `base` and the helpers is one ("tensorrt-rtx" is `tensorrt_rtx`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import cast

from edgevlm_runtime.engines.base import Engine, Graph, GraphRequest
from edgevlm_runtime.errors import ProviderError
from edgevlm_runtime.options import RuntimeOptions
from edgevlm_runtime.registry import Registry

log = logging.getLogger(__name__)

ENGINES = Registry(
    "unknown engine",
    {name: f"{__name__}.{name.replace('-', '_')}:make_engine" for name in ("ort", "tensorrt", "tensorrt-rtx")},
    ProviderError,
    group="edgevlm.engines",
)


def maker(name: str) -> Callable[[RuntimeOptions], Engine]:
    """What makes the engine of this name. Raises `ProviderError` where there is none."""
    return cast(Callable[[RuntimeOptions], Engine], ENGINES.get(name.replace("_", "-")))


def make_engine(options: RuntimeOptions) -> Engine:
    """The engine named in the options. Raises `ProviderError` for a name that is not one, or when it cannot load."""
    return maker(options.engine)(options)


def load_graphs(options: RuntimeOptions, requests: Sequence[GraphRequest]) -> tuple[Engine, dict[str, Graph]]:
    """The engine named in the options, and the graphs, by name, that it loaded; all on one engine.

    Raises as `make_engine` and `Engine.load` do.
    """
    engine = make_engine(options)
    try:
        return engine, _load(engine, requests)
    except ProviderError as error:
        other = engine.fallback(error)
        if other is None:
            raise
        log.info("%s: %s", other.identity, other.reason)
    return other, _load(other, requests)


def _load(engine: Engine, requests: Sequence[GraphRequest]) -> dict[str, Graph]:
    return {request.name: engine.load(request) for request in requests}
