"""The engine of a bundle that is being loaded: what the caller named, else what this machine was tuned to, else ort."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from edgevlm_runtime._version import __version__
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.engines import make_engines
from edgevlm_runtime.engines.assigned.several import Several
from edgevlm_runtime.engines.assigned.tuned import Tuned, key_of, recall
from edgevlm_runtime.engines.assigned.words import DEFAULT, Assignment
from edgevlm_runtime.engines.base import Engine
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import RuntimeOptions

log = logging.getLogger(__name__)

PROCESSOR = "cpu"
"""The provider beside which engines are compared (`edgevlm tune`); who names another one has chosen."""
REASON = "as tuned on this machine"
_AGAIN = "not used: run `edgevlm tune` again"


def choose(options: RuntimeOptions, graphs: Sequence[str], tuned: Tuned | None) -> Engine:
    """The engine for these graphs. Raises as `make_engines` does; what was tuned and does not hold any more is told."""
    if options.engine is not None or tuned is None or options.provider.lower() != PROCESSOR:
        return make_engines(options, graphs)
    moved = _moved(tuned)
    if not moved:
        return make_engines(options, graphs)
    plain = replace(options, engine=DEFAULT)
    try:
        if tuned.runtime != __version__:
            raise EdgeVLMError(f"measured with edgevlm-runtime {tuned.runtime}, this is {__version__}")
        wanted = replace(options, engine=str(Assignment(DEFAULT, moved)))
        engine = make_engines(wanted, graphs, REASON, otherwise=lambda: make_engines(plain, graphs))
        if isinstance(engine, Several):
            _check(engine, tuned)
    except EdgeVLMError as error:
        log.warning("tuned engines, %s: %s", _AGAIN, error)
        return make_engines(plain, graphs)
    log.info("%s: %s", REASON, engine.identity)
    return engine


def chosen_words(options: RuntimeOptions, bundle: Bundle) -> str:
    """What `choose` takes for this bundle, as `RuntimeOptions.engine` would say it. Raises as it does."""
    if options.engine is not None:
        return options.engine
    known = recall(key_of(bundle, options.threads))
    if known is None or not _moved(known):
        return DEFAULT
    engine = choose(options, tuple(bundle.manifest.graphs), known)
    tuned = isinstance(engine, Several) and engine.reason.startswith(REASON)
    return str(Assignment(DEFAULT, _moved(known))) if tuned else DEFAULT


def _moved(tuned: Tuned) -> dict[str, str]:
    """Graphs that were faster elsewhere."""
    return {graph: spec for graph, spec in tuned.engines.items() if spec != DEFAULT}


def _check(engine: Several, tuned: Tuned) -> None:
    """Raise `EdgeVLMError` where an engine is not the one that was measured."""
    for graph, one in engine.engines.items():
        before = tuned.identities.get(tuned.engines.get(graph, DEFAULT))
        if before != one.identity:
            raise EdgeVLMError(f"measured with {before}, this is {one.identity}")
