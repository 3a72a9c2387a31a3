"""Environments, builds and conversions of the peers, before anything is measured:

    python -m benchmarks.peers.prepare                          # all of them, for the CLIP-L/336 + Qwen2-0.5B shape
    python -m benchmarks.peers.prepare llama.cpp openvino --work /data/peers

It downloads from the package index, compiles llama.cpp, and takes half an hour to two hours and some 20 GB of disk.
What is there is kept: it can be run again after an interruption. What fails is written down and named by the benchmark.
"""

from __future__ import annotations

import time
from pathlib import Path

import click

from benchmarks.peers import PEERS, UnknownPeer, checkpoints, get_peer, state
from benchmarks.peers.base import PeerError, Room, default_work

SHAPE = "clip-l-336-qwen2-0.5b"


def prepare(room: Room, name: str) -> state.State:
    """Install one peer and make its rows; what failed is in the state."""
    peer = get_peer(name)
    ready, missing = [], {}
    try:
        versions = peer.install(room)
    except (PeerError, OSError) as error:
        found = state.State(missing={variant.name: f"not installed: {error}" for variant in peer.VARIANTS})
        state.save(room, name, found)
        return found
    for variant in peer.VARIANTS:
        start = time.monotonic()
        click.echo(f"{name} {variant.name}: making", err=True)
        try:
            peer.convert(room, variant)
        except (PeerError, OSError) as error:
            missing[variant.name] = f"not converted: {error}"
        else:
            ready.append(variant.name)
            click.echo(f"{name} {variant.name}: ready after {time.monotonic() - start:.0f} s", err=True)
        state.save(room, name, state.State(versions, tuple(ready), missing))
    return state.load(room, name)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--shape", default=SHAPE, show_default=True, help="A shape of benchmarks.shapes.")
@click.option("--work", type=click.Path(path_type=Path, file_okay=False), default=default_work, show_default=True)
def main(names: tuple[str, ...], shape: str, work: Path) -> None:
    """Install peers and convert the model for them. NAME: all of them unless given."""
    room = Room(work.resolve(), shape)
    try:
        for name in names:
            get_peer(name)
    except UnknownPeer as error:
        raise click.UsageError(str(error)) from error
    checkpoints.ensure(room)
    for name in names or PEERS:
        found = prepare(room, name)
        shown = ", ".join(f"{package} {version}" for package, version in found.versions.items())
        click.echo(f"{name}: {', '.join(found.ready) or 'nothing'} ready ({shown})")
        for row, why in found.missing.items():
            click.echo(f"{name} {row}: missing: {why}")


if __name__ == "__main__":
    main()
