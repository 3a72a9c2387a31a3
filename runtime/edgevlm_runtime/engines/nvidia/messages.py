"""What TensorRT says: kept, so that a failure can be told in one line, and passed on to `logging`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

LONGEST = 400


def make_logger(module: Any, watch: Callable[[str], None] = lambda _: None) -> Any:
    """A logger of the library's own kind. `watch` sees every message; errors are kept, in order, in `errors`."""

    class Messages(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            """Called by the library, for everything; from any of its threads."""
            text = " ".join(msg.split())
            kinds = module.ILogger.Severity
            if severity in (kinds.ERROR, kinds.INTERNAL_ERROR):
                self.errors.append(text)
            if severity in (kinds.ERROR, kinds.INTERNAL_ERROR, kinds.WARNING):
                log.debug("%s: %s", module.__name__, text)
            watch(text)

        def first_error(self) -> str:
            """What went wrong first, shortened; empty when nothing did."""
            return self.errors[0][:LONGEST] if self.errors else ""

    return Messages()
