"""The same work on a Ray cluster, by Ray Data: tasks read rows, actors with the bundle loaded answer them.

Every machine must find the bundle and the input where they were given: on a shared disk, or (the input) at an address.
An actor that ends is started again by Ray and its batch asked again; the journal keeps one result for each place.
"""

from __future__ import annotations

import logging
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from edgevlm.bulk.asking import Asker, Task
from edgevlm.bulk.readers import Reader
from edgevlm.bulk.rows import Ask, Group, Result, Row, asks_of, encode, slots_of_row, together
from edgevlm.bulk.shares import Shares
from edgevlm_runtime.engines.cores import physical_cores
from edgevlm_runtime.errors import EdgeVLMError, reason
from edgevlm_runtime.privacy import switch_reports_off

LOCAL = "local"
TOGETHER = 8
"""Groups that an actor is given at once, and loses when it ends."""
LEAST_OF_PART = 32
"""Answers of a part of the input, at least; each part's task reads its way to where the part begins."""
PARTS_OF_WORKER = 8
BLOCK_BYTES = 16 << 10
"""Results are handed on in blocks of this size: as they come, not at the end."""
READING_CPUS = 0.1

Batch = dict[str, Any]


class Pending:
    """Places of answers that are still to be asked for: 8 bytes each."""

    def __init__(self, questions: Sequence[str]) -> None:
        self._slots = array("q")
        self._of_row = slots_of_row(questions)

    def add(self, asks: Sequence[Ask]) -> None:
        """These too; they come in the input's order."""
        self._slots.extend(ask.slot for ask in asks)

    def __len__(self) -> int:
        return len(self._slots)

    def parts(self, workers: int) -> list[Batch]:
        """The places in parts, each with the number of the first row to read."""
        most = max(1, PARTS_OF_WORKER * workers)
        size = max(LEAST_OF_PART, -(-len(self) // most))
        cut = (self._slots[start : start + size] for start in range(0, len(self), size))
        return [{"first": part[0] // self._of_row, "slots": part.tobytes()} for part in cut]


@dataclass(frozen=True, slots=True)
class Work:
    """What is read and asked, on whatever machine."""

    reader: Reader
    questions: tuple[str, ...]
    task: Task

    def groups(self, part: Batch) -> Iterator[Group]:
        """Questions of one part."""
        slots = array("q")
        slots.frombytes(part["slots"])
        wanted = set(slots)

        def pending(row: Row) -> list[Ask]:
            return [ask for ask in asks_of(row, self.questions) if ask.slot in wanted]

        yield from together(self._rows(part["first"], slots[-1]), pending)

    def _rows(self, first: int, last_slot: int) -> Iterator[Row]:
        for row in self.reader.rows(first):
            if row.number * slots_of_row(self.questions) > last_slot:
                return
            yield row


class Reading:
    """Reads parts: a function of `map_batches`."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        for first, slots in zip(batch["first"], batch["slots"], strict=True):
            lines: list[bytes] = []
            for group in self._work.groups({"first": int(first), "slots": bytes(slots)}):
                lines.append(encode(group))
                if len(lines) == TOGETHER:
                    yield {"group": lines}
                    lines = []
            if lines:
                yield {"group": lines}


class Asking:
    """An `Asker` as Ray Data has it: made once in each actor, then called with batches."""

    def __init__(self, task: Task) -> None:
        self._asker = Asker(task)

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        for line in batch["group"]:
            answered = self._asker.answers(msgspec.json.decode(bytes(line), type=Group))
            yield {"result": [encode(result) for result in answered]}


@contextmanager
def connected(address: str, workers: int | None, task: Task) -> Iterator[Shares]:
    """A connection to the cluster at `address`; "local" starts one on this machine, and ends it. Gives the actors,
    and threads of each. Raises `EdgeVLMError` where there is none, `ModuleNotFoundError` without Ray."""
    switch_reports_off()
    import ray

    threads = int(task.loading.get("threads") or 1)
    local = address == LOCAL
    count = (workers or max(1, physical_cores() // threads)) if local else workers
    own = {"num_cpus": (count or 1) * threads + 1, "include_dashboard": False} if local else {"address": address}
    # workers run this Python as it is here: no copy of the folder the command was started in is sent around
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        ray.init(**own, logging_level=logging.WARNING, log_to_driver=False)
    except Exception as error:  # whatever Ray raises where there is no cluster
        raise EdgeVLMError(f"no Ray cluster at {address}: {reason(error)}") from error
    try:
        found = count or max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
        yield Shares(found, threads)
    finally:
        ray.shutdown()


def results(work: Work, pending: Pending, divided: Shares) -> Iterator[Result]:
    """Results as they come; one may come twice. Raises `EdgeVLMError` with what the cluster says when it gives up."""
    import ray.data

    context = ray.data.DataContext.get_current()
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context.enable_progress_bars = False
    context.target_max_block_size = BLOCK_BYTES
    context.target_min_block_size = 1
    task = replace(work.task, loading={**work.task.loading, "threads": divided.threads})
    parts = pending.parts(divided.processes)
    answered = (
        ray.data.from_items(parts, override_num_blocks=len(parts))
        .map_batches(Reading(work).__call__, batch_size=1, num_cpus=READING_CPUS)
        .map_batches(
            Asking,
            fn_constructor_args=(task,),
            compute=ray.data.ActorPoolStrategy(size=divided.processes),
            num_cpus=divided.threads,
            batch_size=TOGETHER,
        )
    )
    try:
        for batch in answered.iter_batches(batch_size=None, prefetch_batches=0):
            for line in batch["result"]:
                yield msgspec.json.decode(bytes(line), type=Result)
    except ray.exceptions.RayError as error:
        raise EdgeVLMError(f"the cluster gave up: {_cause(error)}: go on with --resume") from error


def _cause(error: Exception) -> str:
    """The first error, where Ray tells it: its own has the traceback of every machine."""
    cause = getattr(error, "cause", None)
    return reason(cause if isinstance(cause, Exception) else error)
