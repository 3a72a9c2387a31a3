"""Records that are on disk and that a spool never got: the process was killed between the two."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edgevlm.watch.records import files
from edgevlm.watch.records.reading import Line, lines
from edgevlm.watch.records.record import Record
from edgevlm.watch.sinks.delivery.waiting import MOST_WAITING
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.reading import known


class _Number(msgspec.Struct):
    number: int = 0


def number_of(payload: bytes) -> int:
    """The number of the record that an entry holds; 0 for one that holds none."""
    try:
        return msgspec.json.decode(payload, type=known(_Number)).number
    except msgspec.MsgspecError:
        return 0


def newest(file: Path) -> int:
    """The number of the last record in `file`; 0 where there is none."""
    return max((record.number for record in _sound(_last(file, 1))), default=0)


def missed(file: Path, after: int) -> Iterator[Record]:
    """Records of `file` with numbers above `after`, oldest first: as many as may have waited in memory for a sink."""
    return (record for record in _sound(_last(file, MOST_WAITING)) if record.number > after)


def _last(file: Path, count: int) -> deque[Line]:
    """Lines at the end of the chain that is written to `file`. What cannot be read is left out: it is nobody's loss
    here, and whoever writes records says so."""
    found: deque[Line] = deque(maxlen=count)
    for one in files.chain(file)[-2:]:
        try:
            found.extend(lines(one))
        except EdgeVLMError:
            continue
    return found


def _sound(found: deque[Line]) -> Iterator[Record]:
    for line in found:
        try:
            yield line.record()
        except EdgeVLMError:
            continue
