"""What a peer is: rows it can be measured in, how it is installed and made, and one turn of measuring.

Only the standard library here: the peers' own Pythons import this file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

VISION = "vision_ms"
PREFILL = "prefill_tokens_per_s"
DECODE = "decode_tokens_per_s"
FIRST_TOKEN = "time_to_first_token_ms"
SECOND_QUESTION = "repeat_question_ttft_ms"
LOAD = "load_ms"
MEMORY = "peak_rss_mib"
ENVIRONMENT = "venv"
"""A peer's environment, where it needs no second one; a folder's name."""


class PeerError(Exception):
    """A peer could not be installed, made or measured; one line that says why."""


@dataclass(frozen=True, slots=True)
class Measures:
    """One turn of a peer. None where it cannot say; `Variant.blanks` has the reason."""

    vision_ms: float | None = None
    """Vision encoder and projector together."""
    prefill_tokens_per_s: float | None = None
    decode_tokens_per_s: float | None = None
    """At the depth of the whole prompt."""
    time_to_first_token_ms: float | None = None
    """From the image file and the question to the first token."""
    repeat_question_ttft_ms: float | None = None
    """The same for a second question about the image."""
    load_ms: float | None = None
    peak_rss_mib: float | None = None
    """Largest resident set of the process that gave the above."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of the table: a peer in one precision."""

    name: str
    """One of a kind in its peer, and a folder's name."""
    precision: str
    """How weights and computation are held, in the peer's own words."""
    blanks: dict[str, str] = field(default_factory=dict)
    """Measures that this row cannot have, and why."""
    remark: str = ""
    """What a reader has to know to compare the row with others."""


@dataclass(frozen=True, slots=True)
class Task:
    """What our own engines are asked, for those that read neither our bundles nor our tokenizer. Plain data."""

    image: str
    """PNG file of the model's own size."""
    first: str
    second: str
    """The two questions."""
    first_ids: tuple[int, ...]
    second_ids: tuple[int, ...]
    """Their prompts, the image's tokens included."""
    image_token_id: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    new_tokens: int
    threads: int

    @property
    def shared(self) -> int:
        """Tokens that both prompts begin with; the image is among them."""
        pairs = zip(self.first_ids, self.second_ids, strict=False)
        return next(
            (place for place, (one, other) in enumerate(pairs) if one != other),
            min(len(self.first_ids), len(self.second_ids)),
        )


@dataclass(frozen=True, slots=True)
class Room:
    """Where everything of the peers lies, for one shape of model."""

    work: Path
    shape: str

    @property
    def checkpoint(self) -> Path:
        """The whole model, as transformers saves it."""
        return self.work / "checkpoints" / self.shape

    @property
    def decoder(self) -> Path:
        """Its language model alone, likewise."""
        return self.work / "decoders" / self.shape

    def home(self, peer: str) -> Path:
        """What a peer has for all shapes: environment, sources, builds."""
        return self.work / peer

    def models(self, peer: str) -> Path:
        """What a peer made of this shape."""
        return self.work / peer / self.shape

    def python(self, peer: str, environment: str = ENVIRONMENT) -> Path:
        """The interpreter of its environment, or of one of several."""
        return self.home(peer) / environment / ("Scripts" if os.name == "nt" else "bin") / "python"


class Peer(Protocol):
    """A file of this folder."""

    NAME: str
    VARIANTS: tuple[Variant, ...]

    def install(self, room: Room) -> dict[str, str]:
        """Environment, sources, builds; what is there stays. Versions by package. Raises `PeerError`."""
        ...

    def convert(self, room: Room, variant: Variant) -> None:
        """Make the model of one row from `room.checkpoint` or `room.decoder`. Raises `PeerError`."""
        ...

    def model_files(self, room: Room, variant: Variant) -> list[Path]:
        """What a user of this row would ship."""
        ...

    def measure(self, room: Room, variant: Variant, task: Task) -> Measures:
        """One turn: load, warm up, measure. Raises `PeerError`."""
        ...


def default_work() -> Path:
    """Where peers are kept unless `--work` says otherwise."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "edgevlm" / "peers"
