"""How many positions of a prompt this machine computes at once most quickly: measured once, then remembered.

Larger chunks use the processor's matrix units better, smaller ones keep their activations in its caches, and causal
attention computes less of what it masks. Where the best lies depends on the processor and on how the bundle's weights
are stored, so it is measured on the device (`edgevlm tune`) and kept (`engines.assigned.tuned`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgevlm_runtime.decoding.attention import chunks
from edgevlm_runtime.decoding.decoder import Decoder
from edgevlm_runtime.decoding.positions import PositionScheme
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import need

DEFAULT_CHUNK = 320
"""Where nothing was measured: 576 tokens of an image and a question make two chunks, the best where we measured."""
CANDIDATES = (64, 128, 192, 256, 320, 448, 640, 1024)
POSITIONS = 608
"""Length of the prompt that is measured: an image of 576 tokens and a question."""
ROUNDS = 5

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
