"""Whether a bundle or a plan has changed on disk.

Looked at every few seconds instead of being told by the system: a bundle is replaced by a rename or behind a link, of
which the folder that was there before tells nothing, and network drives tell nothing at all.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

POLL_S = 2.0

Seen = frozenset[tuple[str, int, int, int]]
"""Path, inode, bytes and time of change of every file; files that are not there are left out."""


def look(paths: Iterable[Path]) -> Seen:
    """What is there now: of files themselves, of folders everything in them."""
    seen = set()
    for path in paths:
        for file in _files(path):
            try:
                found = file.stat()
            except OSError:
                continue
            seen.add((str(file), found.st_ino, found.st_size, found.st_mtime_ns))
    return frozenset(seen)


def follow(
    paths: Callable[[], Iterable[Path]], stop: threading.Event, changed: Callable[[], None], poll_s: float = POLL_S
) -> None:
    """Until `stop` is set, call `changed` for each change that has come to rest: two looks in a row see the same."""
    known = before = look(paths())
    while not stop.wait(poll_s):
        now = look(paths())
        if now != known and now == before:
            changed()
            known = look(paths())
        before = now


def _files(path: Path) -> Iterable[Path]:
    if not path.is_dir():
        return [path]
    return (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
