"""What was prepared: one JSON file for a peer and a shape, written by `prepare`, read by the benchmark."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from benchmarks.peers import PEERS, get_peer
from benchmarks.peers.base import Room, Variant

FILE = "prepared.json"
LOG = " (all of it: "
"""Before the place of a log, at the end of what `tools.run` says."""


@dataclass(frozen=True, slots=True)
class State:
    """What of a peer can be measured."""

    versions: dict[str, str] = field(default_factory=dict)
    ready: tuple[str, ...] = ()
    """Names of its rows."""
    missing: dict[str, str] = field(default_factory=dict)
    """Other rows, and why there is nothing to measure."""


def save(room: Room, peer: str, state: State) -> None:
    """Write it beside the models."""
    folder = room.models(peer)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(asdict(state), indent=1) + "\n", encoding="utf-8")


def load(room: Room, peer: str) -> State:
    """What `save` wrote; a state with every row missing where `prepare` was never run. Raises `UnknownPeer`."""
    names = [variant.name for variant in get_peer(peer).VARIANTS]
    try:
        found = json.loads((room.models(peer) / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        why = f"not prepared: python -m benchmarks.peers.prepare {peer} --shape {room.shape} --work {room.work}"
        return State(missing=dict.fromkeys(names, why))
    return State(found["versions"], tuple(found["ready"]), found["missing"])


def ready_rows(room: Room, peers: tuple[str, ...]) -> list[tuple[str, Variant, dict[str, str]]]:
    """Peer, row and versions of everything that can be measured."""
    return [
        (peer, variant, state.versions)
        for peer in peers
        for state in [load(room, peer)]
        for variant in get_peer(peer).VARIANTS
        if variant.name in state.ready
    ]


def missing_rows(room: Room, peers: tuple[str, ...]) -> dict[str, str]:
    """Why each row of `peers` that cannot be measured is missing, by `peer row`; not where this machine has the log."""
    return {
        f"{peer} {name}": why.partition(LOG)[0]
        for peer in peers
        if peer in PEERS
        for name, why in load(room, peer).missing.items()
    }
