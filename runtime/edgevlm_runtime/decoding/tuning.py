"""How many positions of a prompt this machine computes at once most quickly: measured once, then remembered.

Larger chunks use the processor's matrix units better, smaller ones keep their activations in its caches, and causal
attention computes less of what it masks. Where the best lies depends on the processor and on how the bundle's weights
are stored, so it is measured on the device (`edgevlm tune`) and kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from edgevlm_runtime.decoding.attention import chunks
from edgevlm_runtime.decoding.decoder import Decoder
from edgevlm_runtime.decoding.positions import PositionScheme
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import need
from edgevlm_runtime.reading import read_json
from edgevlm_runtime.saving import check_file, write_atomic

log = logging.getLogger(__name__)

DEFAULT_CHUNK = 320
"""Where nothing was measured: 576 tokens of an image and a question make two chunks, the best where we measured."""
CANDIDATES = (64, 128, 192, 256, 320, 448, 640, 1024)
POSITIONS = 608
"""Length of the prompt that is measured: an image of 576 tokens and a question."""
ROUNDS = 5
_FOLDER = "edgevlm/tuning"
_CPU_INFO = Path("/proc/cpuinfo")

Advance = Callable[[int, int], None]
"""Told how many rounds are done, and of how many."""


def silent(done: int, total: int) -> None:
    """The default: no progress is shown."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was measured."""

    prefill_chunk: int
    """The fastest."""
    tokens_per_s: dict[int, float]
    """Chunk to speed."""
    positions: int
    """Length of the prompt."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """What of a measurement is read again."""

    prefill_chunk: Annotated[int, msgspec.Meta(ge=1)]


def measure(
    decoder: Decoder,
    positions: PositionScheme,
    capacity: int,
    candidates: Sequence[int] = CANDIDATES,
    rounds: int = ROUNDS,
    progress: Advance = silent,
) -> Tuning:
    """Prefill one prompt in chunks of every size, in turn, `rounds` times after one to warm up; the medians decide.

    Raises `EdgeVLMError` when the context is too short to tell sizes apart, or for no rounds at all.
    """
    need(rounds >= 1, "rounds", rounds, "a whole number of at least 1")
    length = min(POSITIONS, capacity)
    sizes = sorted({min(size, length) for size in candidates})
    if len(sizes) < 2:
        raise EdgeVLMError(f"nothing to tune: the context holds {capacity} tokens: any prefill_chunk will do")
    run = decoder.new_run(length)
    embeddings = np.random.default_rng(0).standard_normal((length, decoder.info.input_width)).astype(np.float32)
    last = np.zeros(1, dtype=np.int64)
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for turn in range(rounds + 1):
        for size in sizes:
            run.kv.rewind(0)
            begin = time.perf_counter()
            for start, stop in chunks(0, length, size):
                feeds = positions.feeds((), start, stop)
                if decoder.prefill_graph is not None:
                    run.prefill(embeddings[start:stop], feeds)
                else:
                    run.forward(embeddings[start:stop], last, feeds)
            seconds[size].append(time.perf_counter() - begin)
        progress(turn + 1, rounds + 1)
    speeds = {size: length / float(np.median(times[1:])) for size, times in seconds.items()}
    return Tuning(max(speeds, key=speeds.__getitem__), speeds, length)


def key(bundle_digest: str, engine: str, threads: int) -> str:
    """Names what a measurement holds for: this bundle, engine and number of threads, on this processor."""
    parts = (bundle_digest, engine, str(threads), _processor())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def recall(name: str) -> int | None:
    """The chunk that was measured under this key, or None; a damaged file counts as none."""
    try:
        return read_json(_file(name), _Kept, "tuning file").prefill_chunk
    except (FileNotFoundError, RuntimeError):  # RuntimeError: this user has no home folder
        return None
    except EdgeVLMError as error:
        log.warning("damaged tuning file, not used: %s", error)
        return None


@contextmanager
def _keeping() -> Iterator[None]:
    """Within, what keeps a measurement from being kept is an `EdgeVLMError` that says what to do."""
    try:
        yield
    except (EdgeVLMError, RuntimeError) as error:  # RuntimeError: this user has no home folder
        raise EdgeVLMError(f"tuning cannot be kept: {error}: set XDG_CACHE_HOME to a folder of yours") from error


def check_place(name: str) -> None:
    """Before anything is measured: it can be kept. Raises `EdgeVLMError`."""
    with _keeping():
        check_file(_file(name), force=True)


def remember(name: str, tuning: Tuning) -> Path:
    """Keep a measurement for `recall`. Raises `EdgeVLMError` when the cache folder cannot be written."""
    content = {
        "prefill_chunk": tuning.prefill_chunk,
        "tokens_per_s": {str(size): round(speed, 1) for size, speed in tuning.tokens_per_s.items()},
        "positions": tuning.positions,
    }
    with _keeping():
        file = _file(name)
        write_atomic(file, json.dumps(content, indent=1))
    return file


def _file(name: str) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / _FOLDER / f"{name}.json"


def _processor() -> str:
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    told = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(told, "") or platform.processor() or platform.machine()
