"""Engines by name: each file of this folder but `base` and the helpers is one ("tensorrt-rtx" is `tensorrt_rtx`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

from edgevlm_runtime.engines.assigned.several import Several, engine_of
from edgevlm_runtime.engines.assigned.words import DEFAULT, Assignment, name_of
from edgevlm_runtime.engines.base import Engine, Graph, GraphRequest
from edgevlm_runtime.errors import EdgeVLMError, ProviderError
from edgevlm_runtime.options import RuntimeOptions
from edgevlm_runtime.registry import Registry

log = logging.getLogger(__name__)

_NAMES = ("ort", "openvino", "tensorrt", "tensorrt-rtx")
ENGINES = Registry(
    "unknown engine",
    {name: f"{__name__}.{name.replace('-', '_')}:make_engine" for name in _NAMES},
    ProviderError,
    group="edgevlm.engines",
)


def maker(name: str) -> Callable[[RuntimeOptions], Engine]:
    """What makes the engine of this name, whatever words follow it. Raises `ProviderError` where there is none."""
    return cast(Callable[[RuntimeOptions], Engine], ENGINES.get(name_of(name).replace("_", "-")))


def make_engine(options: RuntimeOptions) -> Engine:
    """The one engine named in the options. Raises `ProviderError` for an unknown name, or when it cannot load."""
    return maker(options.engine or DEFAULT)(options)


def make_engines(
    options: RuntimeOptions, graphs: Sequence[str], reason: str = "", otherwise: Callable[[], Engine] | None = None
) -> Engine:
    """What runs these graphs, as the options say (`assigned.words`). `reason`: why, where the caller did not say so;
    `otherwise`: what to take then where it fails.

    Raises as `make_engine` does, and `EdgeVLMError` for an assignment that does not fit.
    """
    assignment = Assignment.parse(options.engine)
    assignment.check(graphs)
    if "prefill" in graphs and assignment.of("prefill") != assignment.of("decoder"):
        raise EdgeVLMError("--engine: prefill fills the decoder's KV cache: give both one engine")
    made: dict[str, Engine] = {}
    for graph in graphs:
        spec = assignment.of(graph)
        if spec not in made:
            made[spec] = make_engine(replace(options, engine=spec))
    if len(made) == 1 and not reason:
        return next(iter(made.values()))
    return Several({graph: made[assignment.of(graph)] for graph in graphs}, reason, otherwise)


def load_graphs(engine: Engine, requests: Sequence[GraphRequest]) -> tuple[Engine, dict[str, Graph]]:
    """The graphs, by name, that the engine loaded, and the engine: another one where "auto" had to think again.

    Raises as `Engine.load` does.
    """
    try:
        return engine, _load(engine, requests)
    except ProviderError as error:
        other = engine.fallback(error)
        if other is None:
            raise
        log.info("%s: %s", other.identity, other.reason)
    return other, _load(other, requests)


def _load(engine: Engine, requests: Sequence[GraphRequest]) -> dict[str, Graph]:
    """What is widened comes first: while it is made, it is in memory twice."""
    graphs: dict[str, Graph] = {}
    for request in sorted(requests, key=lambda one: not one.info.widened):
        if request.info.widened and not getattr(engine_of(engine, request.name), "widens", False):
            log.info("%s: left out: its weights are made for ONNX Runtime on a processor alone", request.name)
            continue
        graphs[request.name] = engine.load(request)
    return graphs
