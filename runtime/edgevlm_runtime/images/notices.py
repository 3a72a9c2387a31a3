"""What is said about pictures, once: a camera sends thousands that are all alike.

    tell_once(logging.WARNING, "no depth", "%s: 16 bits taken", where)

Each kind of remark is logged for the first picture that it applies to, and not again in this process.
"""

from __future__ import annotations

import logging
import threading

log = logging.getLogger("edgevlm_runtime.images")

_told: set[str] = set()
_lock = threading.Lock()


def tell_once(level: int, kind: str, message: str, *arguments: object) -> None:
    """Log `message` (with `arguments`, as `logging` has them) unless a remark of this `kind` was made before."""
    with _lock:
        if kind in _told:
            return
        _told.add(kind)
    log.log(level, f"{message} (said once)", *arguments)  # noqa: G004 (the arguments are still the message's)


def forget() -> None:
    """Everything may be said again."""
    with _lock:
        _told.clear()
