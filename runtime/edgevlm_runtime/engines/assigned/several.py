"""Engines that share a bundle's graphs, as one engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from edgevlm_runtime.engines.base import AS_ASKED, Engine, Graph, GraphRequest
from edgevlm_runtime.errors import BundleError, ProviderError

log = logging.getLogger(__name__)


class Several:
    """Gives each graph to its own engine; see `edgevlm_runtime.engines.base.Engine`."""

    def __init__(
        self, engines: Mapping[str, Engine], reason: str = "", otherwise: Callable[[], Engine] | None = None
    ) -> None:
        """`engines` by graph; `reason`: why these, where the caller did not name them; `otherwise`: what to take where
        they fail."""
        self.engines = dict(engines)
        own = dict.fromkeys(one.reason for one in engines.values() if one.reason != AS_ASKED)
        self.reason = "; ".join(filter(None, [reason, *own])) or AS_ASKED
        self.automatic = any(one.automatic for one in engines.values())
        self._why = reason
        self._otherwise = otherwise

    @property
    def identity(self) -> str:
        """See `Engine.identity`: all of them, each with its graphs."""
        graphs: dict[str, list[str]] = {}
        for graph, engine in self.engines.items():
            graphs.setdefault(engine.identity, []).append(graph)
        if len(graphs) == 1:
            return next(iter(graphs))
        return "; ".join(f"{', '.join(names)}: {identity}" for identity, names in graphs.items())

    def fallback(self, error: ProviderError) -> Engine | None:
        """See `Engine.fallback`: where any of them has one, or nobody named them."""
        if self._otherwise is not None:
            log.warning("tuned engines, not used: %s: run `edgevlm tune` again", error)
            return self._otherwise()
        others = {id(one): one.fallback(error) for one in self.engines.values()}
        if all(other is None for other in others.values()):
            return None
        return Several({graph: others[id(one)] or one for graph, one in self.engines.items()}, self._why)

    def load(self, request: GraphRequest) -> Graph:
        """See `Engine.load`. What one engine cannot read, and nobody named it, is for another to try."""
        try:
            return self.engines[request.name].load(request)
        except BundleError as error:
            if self._otherwise is None:
                raise
            raise ProviderError(str(error)) from error


def engine_of(engine: Engine, graph: str) -> Engine:
    """The one that runs `graph`."""
    return engine.engines[graph] if isinstance(engine, Several) else engine
