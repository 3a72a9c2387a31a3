"""Other people's engines, measured beside ours: each in an environment and processes of its own.

A peer is a file of this folder, listed in `PEERS`; `base.Peer` says what it has to hold.

    python -m benchmarks.peers.prepare                    # environments, builds, conversions: long, once
    python -m benchmarks --peers all --only clip-l-336-qwen2-0.5b

A peer's file is run by the peer's own Python as well: at its top it imports the standard library and this package only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from benchmarks.peers.base import Peer

PEERS = {
    "llama.cpp": "llama_cpp",
    "openvino": "openvino",
    "openvino-genai": "openvino_genai",
    "onnxruntime-genai": "onnxruntime_genai",
    "transformers-exporters": "transformers_exporters",
}
"""Name on the command line and in tables, and the file."""


class UnknownPeer(ValueError):
    """A name that is not in `PEERS`."""


def get_peer(name: str) -> Peer:
    """The peer of this name. Raises `UnknownPeer`."""
    if name not in PEERS:
        raise UnknownPeer(f"no peer {name!r}: there are {', '.join(PEERS)}, and `all`")
    return cast("Peer", import_module(f"benchmarks.peers.{PEERS[name]}"))


def chosen(text: str | None) -> tuple[str, ...]:
    """The names in `a,b` or `all`; none for None. Raises `UnknownPeer`."""
    if text is None:
        return ()
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if names == ("all",):
        return tuple(PEERS)
    for name in names:
        if name not in PEERS:
            get_peer(name)
    return names
