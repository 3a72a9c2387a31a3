"""A server from its bundles to its end.

with serving(ServeOptions(bundles=(Path("inspector-int8"),))) as (address, state):
    ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from edgevlm.serve.app import Serving, application
from edgevlm.serve.options import MAX_PIXELS, ServeOptions, name_of
from edgevlm.serve.pictures.bring import Pictures
from edgevlm.serve.pictures.fetching import Fetcher
from edgevlm.serve.work import Served
from edgevlm.web.server import Server
from edgevlm_runtime.model import load

LEAST_ARRIVING = 8
"""Bodies that may be read at once, however short the line is."""
ALWAYS: Mapping[str, Any] = {"text_tokens": "literal"}
"""No control token comes from a client."""


@contextmanager
def serving(options: ServeOptions, loading: Mapping[str, Any] | None = None) -> Iterator[tuple[str, Serving]]:
    """The address, and what is served there, as long as the block runs.

    `loading`: arguments of `edgevlm_runtime.load`. Raises as that does, and `EdgeVLMError` for a port that is taken, a
    host that others reach without a token, a folder that is none.
    """
    pictures = Pictures(
        options.allow_files, Fetcher(options.most_bytes) if options.allow_urls else None, options.most_bytes
    )
    given = {"max_image_pixels": MAX_PIXELS, **(loading or {}), **ALWAYS}
    loaded = [(name_of(bundle), load(bundle, **given)) for bundle in options.bundles]
    models = [Served(name, vlm, options.contexts, options.waiting, options.parallel) for name, vlm in loaded]
    arriving = max(LEAST_ARRIVING, options.waiting)
    state = Serving(models, pictures, options.most_bytes, arriving, options.tokens)
    token = options.tokens[0] if options.tokens else None
    try:
        server = Server(application(state), "edgevlm serve", options.host, options.port, token)
        address = server.start()
        try:
            yield address, state
        finally:
            state.stopping = True
            for model in models:
                model.close()
            server.stop()
    finally:
        for model in models:
            model.close()
            model.join()
