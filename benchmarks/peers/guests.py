"""Peers as guests of the benchmark: their turns among the rounds of our engines, and what is kept of them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmarks.peers import get_peer, state
from benchmarks.peers.base import Measures, PeerError, Room, Task, Variant
from edgevlm.benchmark import workload
from edgevlm.benchmark.run import Guests
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.images import load_image, make_processor
from edgevlm_runtime.text.prompt import PromptEncoder

MEASURES = tuple(one.name for one in fields(Measures))


@dataclass(slots=True)
class PeerGuest:
    """One row of a peer. A row that fails once is left out of further rounds."""

    peer: str
    variant: Variant
    room: Room
    task: Task
    versions: dict[str, str]
    note: Callable[[str, Measures], None] = lambda *_: None
    """Told every row as it is measured."""
    rows: list[Measures] = field(default_factory=list)
    error: str | None = None

    @property
    def label(self) -> str:
        """One of a kind."""
        return f"{self.peer} {self.variant.name}"

    def turn(self) -> None:
        """One round: a process that loads, warms up and measures."""
        if self.error is None:
            try:
                self.rows.append(get_peer(self.peer).measure(self.room, self.variant, self.task))
                self.note(self.label, self.rows[-1])
            except PeerError as error:
                self.error = str(error)


@dataclass(slots=True)
class Party:
    """All peers of a run; `guests` is what the benchmark calls, `results` what is kept afterwards."""

    room: Room
    peers: tuple[str, ...]
    note: Callable[[str, Measures], None] = lambda *_: None
    members: list[PeerGuest] = field(default_factory=list)

    def guests(self, asked: workload.Task, bundle: Bundle) -> Sequence[PeerGuest]:
        """Every row that is prepared."""
        task = peer_task(asked, bundle, self.room)
        self.members = [
            PeerGuest(peer, variant, self.room, task, versions, self.note)
            for peer, variant, versions in state.ready_rows(self.room, self.peers)
        ]
        return self.members

    def results(self) -> dict[str, Any]:
        """`peers`: rows with medians and every round; `missing`: what could not be measured, and why."""
        measured = [one for one in self.members if one.rows]
        failed = {one.label: f"failed: {one.error}" for one in self.members if one.error is not None}
        return {
            "peers": [describe(one) for one in measured],
            "missing": {**state.missing_rows(self.room, self.peers), **failed},
        }


def describe(guest: PeerGuest) -> dict[str, Any]:
    """One row as plain data."""
    files = get_peer(guest.peer).model_files(guest.room, guest.variant)
    return {
        "label": guest.label,
        "peer": guest.peer,
        "precision": guest.variant.precision,
        "versions": guest.versions,
        "model_bytes": sum(file.stat().st_size for file in files),
        "medians": medians(guest.rows),
        "blanks": guest.variant.blanks,
        "remark": guest.variant.remark,
        "rows": [asdict(row) for row in guest.rows],
    }


def medians(rows: Sequence[Measures]) -> dict[str, float | None]:
    """Of each measure over the rounds; None where a round lacks it."""
    found: dict[str, float | None] = {}
    for name in MEASURES:
        values = [value for row in rows if (value := getattr(row, name)) is not None]
        found[name] = round(statistics.median(values), 3) if len(values) == len(rows) else None
    return found


def peer_task(asked: workload.Task, bundle: Bundle, room: Room) -> Task:
    """What our engines are asked, as tokens and plain numbers."""
    manifest = bundle.manifest
    prompts = PromptEncoder.load(bundle.path, manifest.prompt)
    prepared = make_processor(manifest.image)(load_image(asked.image))

    def tokens(text: str) -> tuple[int, ...]:
        parts = [{"type": "image"}, {"type": "text", "text": text}]
        return tuple(int(one) for one in prompts.encode([{"role": "user", "content": parts}], [prepared]).token_ids)

    processing = image_processing(room.checkpoint)
    return Task(
        image=asked.image,
        first=asked.first,
        second=asked.second,
        first_ids=tokens(asked.first),
        second_ids=tokens(asked.second),
        image_token_id=manifest.prompt.image_token_id,
        image_mean=tuple(processing["image_mean"]),
        image_std=tuple(processing["image_std"]),
        new_tokens=asked.new_tokens,
        threads=asked.threads,
    )


def image_processing(checkpoint: Path) -> dict[str, Any]:
    """What transformers saved of the image processor, in either of its two files."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        file = checkpoint / name
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        found = found.get("image_processor", found)
        if "image_mean" in found:
            return found
    raise EdgeVLMError(f"no image processor: {checkpoint}: make it again with python -m benchmarks.peers.prepare")


def guests_of(party: Party | None) -> Guests:
    """For `bench`."""

    def nobody(_: workload.Task, __: Bundle) -> Sequence[PeerGuest]:
        return ()

    return nobody if party is None else party.guests
