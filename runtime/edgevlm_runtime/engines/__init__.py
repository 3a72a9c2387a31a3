"""Engines by name: each file of this folder but `base` and the helpers is one ("tensorrt-rtx" is `tensorrt_rtx`)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from edgevlm_runtime.engines.base import Engine, Graph
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


def make_engine(options: RuntimeOptions) -> Engine:
    """The engine named in the options. Raises `ProviderError` for a name that is not one, or when it cannot load."""
    return cast(Engine, ENGINES.get(options.engine.replace("_", "-"))(options))


def load_graphs(
    options: RuntimeOptions, files: Mapping[str, Path], spinning: str = "decoder", scores: int | None = None
) -> tuple[Engine, dict[str, Graph]]:
    """The engine named in the options, and the graphs, by name, that it made of `files`; all on one engine.

    Runs of the graph `spinning` follow each other closely; `scores` as for `Engine.load`.
    Raises as `make_engine` and `Engine.load` do.
    """
    engine = make_engine(options)
    try:
        return engine, _load(engine, files, spinning, scores)
    except ProviderError as error:
        other = engine.instead(error)
        if other is None:
            raise
        log.info("%s: %s", other.identity, other.reason)
    return other, _load(other, files, spinning, scores)


def _load(engine: Engine, files: Mapping[str, Path], spinning: str, scores: int | None) -> dict[str, Graph]:
    return {name: engine.load(file, keeps_spinning=name == spinning, scores=scores) for name, file in files.items()}
