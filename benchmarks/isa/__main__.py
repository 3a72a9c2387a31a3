"""See `benchmarks.isa`."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks import folders
from benchmarks.isa import checks, commands
from benchmarks.isa.checks import CPU_INFO, LIBRARY
from benchmarks.isa.patching import copy_environment
from benchmarks.peers import PEERS, UnknownPeer, chosen
from benchmarks.peers import llama_cpp as llama
from benchmarks.peers.base import Room
from benchmarks.peers.prepare import SHAPE

ENVIRONMENT, PEERS_FOLDER = "venv", "peers"
HIDDEN = re.compile(r" (avx512|avx_vnni|amx_|avx_ifma|avx10)[a-z0-9_]*")
"""Linux's names of what is hidden."""
_folder = click.Path(path_type=Path, file_okay=False)


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.argument("room", type=_folder)
@click.option("--peers-work", type=_folder, help="Where peers were prepared; without it edgevlm alone is measured.")
@click.option(
    "--peers", default="llama.cpp,openvino,onnxruntime-genai", show_default=True, help=f"Of {', '.join(PEERS)}."
)
@click.option(
    "--shape", "shapes", multiple=True, default=(SHAPE,), show_default=True, help="Shapes that were prepared."
)
def prepare(room: Path, peers_work: Path | None, peers: str, shapes: tuple[str, ...]) -> None:
    """Make ROOM: environments that cannot see AVX-512, and the peers' models by hard links, on the same disk."""
    if sys.prefix == sys.base_prefix:
        raise click.UsageError("run it in a virtual environment: all of that is copied")
    names = _prepared(peers, peers_work) if peers_work else ()
    room = room.resolve()
    room.mkdir(parents=True, exist_ok=True)
    commands.must("gcc", "-O2", "-shared", "-fPIC", "-o", room / LIBRARY, Path(__file__).with_name("hide_avx512.c"))
    seen = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    (room / CPU_INFO).write_text(HIDDEN.sub("", seen), encoding="utf-8")
    _tell(ENVIRONMENT, copy_environment(Path(sys.prefix), room / ENVIRONMENT))
    checks.check(room, _interpreter(room))
    if peers_work is not None:
        _copy_peers(names, peers_work.resolve(), room, shapes)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("room", type=_folder)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(room: Path, arguments: tuple[str, ...]) -> None:
    """Run this Python's copy in ROOM with ARGUMENTS, without AVX-512."""
    commands.become(*checks.within(room.resolve(), [str(_interpreter(room.resolve())), *arguments]))


def _interpreter(room: Path) -> Path:
    return room / ENVIRONMENT / Path(sys.executable).relative_to(sys.prefix)


def _prepared(peers: str, work: Path) -> tuple[str, ...]:
    """The peers' names. Raises `UsageError` for one that is none, or that was not prepared."""
    try:
        names = chosen(peers)
    except UnknownPeer as error:
        raise click.UsageError(str(error)) from error
    for name in names:
        if not (work / name).is_dir():
            raise click.UsageError(f"{name} is not in {work}: python -m benchmarks.peers.prepare {name}")
    return names


def _copy_peers(names: Sequence[str], work: Path, room: Path, shapes: Sequence[str]) -> None:
    copied = Room(room / PEERS_FOLDER, shapes[0])
    for name in names:
        _copy_peer(work / name, copied.home(name), shapes)
    for kind in ("checkpoints", "decoders"):
        for shape in shapes:
            _link(work / kind / shape, copied.work / kind / shape)
    for name in names:
        if name == llama.NAME:
            llama.install(copied, llama.AVX2)
        for python in sorted(copied.home(name).glob(f"{ENVIRONMENT}*/bin/python")):
            checks.check(room, python)


def _copy_peer(source: Path, target: Path, shapes: Sequence[str]) -> None:
    """Environments patched, sources and models linked; builds are left out."""
    for folder in sorted(one for one in source.iterdir() if one.is_dir()):
        if folder.name.startswith(ENVIRONMENT):
            _tell(f"{source.name} {folder.name}", copy_environment(folder, target / folder.name))
        elif folder.name in shapes or folder.name.startswith(llama.PACKAGE.replace("-", "_")):
            _link(folder, target / folder.name)


def _link(source: Path, target: Path) -> None:
    if source.is_dir():
        folders.ensure(target, lambda made: commands.must("cp", "-al", source, made))


def _tell(what: str, patched: dict[str, int]) -> None:
    for library, count in patched.items():
        click.echo(f"{what}: {library}: {count} instructions")


if __name__ == "__main__":
    main()
