"""Replays of whole record files: which pictures and plans belong to them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from edgevlm.watch.plan import stored
from edgevlm.watch.plan.plan import Plan
from edgevlm.watch.records import pictures
from edgevlm.watch.records.pictures import Kept
from edgevlm.watch.records.reading import Line, chains, lines
from edgevlm.watch.records.record import Record
from edgevlm.watch.replay.ask import not_comparable, replay
from edgevlm.watch.replay.found import Replayed
from edgevlm_runtime import VLM
from edgevlm_runtime.errors import EdgeVLMError

NO_PLAN = "the plan was not kept"
DAMAGED = "the line is not a record, or was altered"


def flips(
    records: Path,
    vlm: VLM,
    plan: Plan,
    *,
    more: Iterable[Path] = (),
    last: int | None = None,
    stop: threading.Event | None = None,
) -> int:
    """How many of the kept frames of `records` (a file, or a folder) get another verdict from `vlm` and `plan`.

    `more`: folders with pictures, beside those that plans and records name. `last`: ask only so many, the newest ones.
    Raises `EdgeVLMError` where there are no records, or this bundle cannot answer the plan's questions.
    """
    kept = pictures.find([*folders(records, [plan]), *more])
    wanted = newest(read(records, Replayed()), kept, last)
    return len(replay(wanted, kept, vlm, plan, stop=stop).flips)


def replay_by_plan(records: Iterable[Record], kept: Kept, vlm: VLM, plans: Mapping[str, Plan], into: Replayed) -> None:
    """Ask each record again by the plan that it names; `plans` by digest. Raises as `replay` does."""
    for digest, some in groupby(records, key=lambda record: record.plan):
        if digest in plans:
            replay(some, kept, vlm, plans[digest], into=into)
        else:
            into.left_out[NO_PLAN] += sum(1 for _ in some)


def read(path: Path, into: Replayed) -> Iterator[Record]:
    """Every record that is as it was written; others are counted as left out. Raises `EdgeVLMError`."""
    for chain in chains(path):
        for file in chain:
            for line in lines(file):
                record = _whole(line)
                if record is None:
                    into.left_out[DAMAGED] += 1
                else:
                    yield record


def _of(file: Path) -> Iterator[Record]:
    return (record for line in lines(file) if (record := _whole(line)) is not None)


def _whole(line: Line) -> Record | None:
    try:
        return line.record() if line.sealed else None
    except EdgeVLMError:
        return None


def newest(records: Iterable[Record], kept: Kept, last: int | None) -> Iterable[Record]:
    """All of them; or the last ones that can be asked again."""
    if last is None:
        return records
    return deque((one for one in records if not not_comparable(one) and kept.has(one.frame)), maxlen=last)


def find_plans(path: Path) -> dict[str, Plan]:
    """The plans that the records of `path` name, by digest, as far as they were kept. Raises `EdgeVLMError`."""
    found: dict[str, Plan] = {}
    for chain in chains(path):
        for digest in dict.fromkeys(record.plan for file in chain for record in _of(file)):
            if digest not in found and stored.is_kept(chain[-1], digest):
                found[digest] = stored.find(chain[-1], digest)
    return found


def folders(path: Path, plans: Iterable[Plan]) -> list[Path]:
    """Where pictures of these records may be: beside them, and where the plans' sinks and sources have them."""
    found = [path if path.is_dir() else path.parent]
    for plan in plans:
        for part in (*plan.sinks, plan.source):
            folder = _folder(part.options)
            if folder is not None:
                found.append(folder)
    return list(dict.fromkeys(found))


def _folder(options: Any) -> Path | None:
    """The `folder` of a source or sink, whose options are plain data in a kept plan."""
    given = options.get("folder") if isinstance(options, Mapping) else getattr(options, "folder", None)
    return Path(given) if isinstance(given, str | Path) and str(given) else None
