"""One look at a source: is it there, and how large are its pictures?"""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass

from edgevlm.watch.plan.plan import Part
from edgevlm.watch.plan.secrets import without_user
from edgevlm.watch.sources import SOURCES
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError, one_line, reason

WAIT_S = 10.0
"""A camera that has not sent a picture by then is taken for unreachable."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The first picture of a source."""

    size: tuple[int, int] | None
    """Width and height; None where there was no picture."""
    trouble: str = ""
    """Why not."""


def look(source: Part, wait_s: float = WAIT_S) -> Seen:
    """Wait for the first picture, at most so many seconds. Raises `EdgeVLMError` for a package that is missing.

    A source that gives none is no error: cameras are switched on later, and folders fill.
    """
    opened = SOURCES.get(source.kind).open_source(source.options, Status())
    found: queue.Queue[Seen | EdgeVLMError] = queue.Queue()
    stop = threading.Event()

    def first() -> None:
        try:
            for picture in opened.pictures(stop):
                height, width = picture.pixels.shape[:2]
                found.put(Seen((width, height)))
                return
            found.put(Seen(None, "it has no pictures"))
        except EdgeVLMError as error:
            found.put(error)
        except Exception as error:  # noqa: BLE001 -- a library's: said as a trouble of the source
            found.put(Seen(None, without_user(f"it failed: {reason(error)}")))

    threading.Thread(target=first, name="look", daemon=True).start()
    try:
        seen = found.get(timeout=wait_s)
    except queue.Empty:
        return Seen(None, f"no picture within {wait_s:g} s")
    finally:
        stop.set()
    return seen if isinstance(seen, Seen) else Seen(None, without_user(one_line(seen)))
