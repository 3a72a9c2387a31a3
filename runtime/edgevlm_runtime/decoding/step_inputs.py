"""What a decoder graph is told about its cache at each run, by the kind the manifest names (`StepInputs.kind`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.bundle.decoder_info import StepInputs
from edgevlm_runtime.decoding.attention import Blocks, Pattern
from edgevlm_runtime.engines.base import Array
from edgevlm_runtime.errors import BundleError
from edgevlm_runtime.registry import Registry

BLOCK_ROWS = "block_rows"


class CacheInputs(Protocol):
    """Makes the inputs that tell a decoder graph where it is in the cache. Stateless: safe from any thread."""

    @property
    def names(self) -> tuple[str, ...]:
        """Inputs that the graph must have."""
        ...

    def feeds(self, past: int, positions: int, blocks: Blocks = ()) -> Mapping[str, Array]:
        """Inputs of a run that appends `positions` tokens to a cache that holds `past`. `blocks`: of the sequence, each
        of them within this run, or within the cache, or later.

        Shapes depend on `positions` and on the blocks in the run alone. An input that the graph lacks, or that the
        positions scheme makes, is ignored.
        """
        ...


class InPlace:
    """GroupQueryAttention's inputs: a cache of any length, updated in place.

    seqlens_k               int32 [1]      past + S - 1
    total_sequence_length   int32 []       past + S
    position_ids            int64 [1, S]   past .. past + S - 1, where the graph rotates and the scheme makes none
    block_rows              int64 [B]      where the attention pattern has blocks: which of the S tokens are in one
    block_mask              bool  [B, T]   which of T = past + S tokens each of these sees (`StepInputs.masks` names
                                           every mask with its window); T is 0 where B is
    """

    def __init__(self, info: StepInputs, cache_rows: int | None, pattern: Pattern) -> None:
        blocks = (BLOCK_ROWS, *info.masks) if info.masks else ()
        self.names: tuple[str, ...] = ("seqlens_k", "total_sequence_length", *blocks)
        self._masks = dict(info.masks)
        self._pattern = pattern

    def feeds(self, past: int, positions: int, blocks: Blocks = ()) -> Mapping[str, Array]:
        """See `CacheInputs.feeds`."""
        total = past + positions
        feeds: dict[str, Array] = {
            "seqlens_k": np.array([total - 1], dtype=np.int32),
            "total_sequence_length": np.array(total, dtype=np.int32),
            "position_ids": np.arange(past, total, dtype=np.int64)[None],
        }
        if self._masks:
            places = _in_blocks(past, total, blocks)
            feeds[BLOCK_ROWS] = places - past
            slots = np.arange(total if places.size else 0)
            for name, window in self._masks.items():
                feeds[name] = _seen(places, slots, window, blocks, self._pattern)
        return feeds


class Static:
    """Inputs of a cache with a fixed length T, written by TensorScatter and read through a mask: standard operators.

    write_indices    int64 [1]            past: where the S new tokens go
    position_ids     int64 [1, S]         past .. past + S - 1, where the positions scheme makes none
    attention_mask   bool  [1, 1, S, T]   what each new token sees: itself and what is before it, within the window
                                          (`StepInputs.masks` names every mask input with its window)
    """

    def __init__(self, info: StepInputs, cache_rows: int | None, pattern: Pattern) -> None:
        """Raises `BundleError` for a graph without a fixed cache length."""
        if cache_rows is None or not info.masks:
            raise BundleError("the decoder graph fixes no cache length, or names no mask: export the model again")
        self.names: tuple[str, ...] = ("write_indices", *info.masks)
        self._masks = dict(info.masks)
        self._slots = np.arange(cache_rows)
        self._pattern = pattern

    def feeds(self, past: int, positions: int, blocks: Blocks = ()) -> Mapping[str, Array]:
        """See `CacheInputs.feeds`."""
        places = np.arange(past, past + positions, dtype=np.int64)
        feeds: dict[str, Array] = {"write_indices": places[:1], "position_ids": places[None]}
        for name, window in self._masks.items():
            feeds[name] = _seen(places, self._slots, window, blocks, self._pattern)[None, None]
        return feeds


def _seen(
    places: NDArray[np.int64], slots: NDArray[np.int64], window: int, blocks: Blocks, pattern: Pattern
) -> NDArray[np.bool_]:
    """bool [S, T]: token at place p sees slots p - window + 1 .. p; all up to p where the window is 0; and, in a block,
    all of the block, or what of it is not before the window, where layers with this window have blocks."""
    blocks = blocks if window or pattern.everywhere else ()
    seen: NDArray[np.bool_] = slots <= places[:, None]
    near = slots > places[:, None] - window if window else True
    if not pattern.windows_hold:
        seen &= near
    for start, stop in blocks:
        inside = (places >= start) & (places < stop)
        if inside.any():
            seen[np.ix_(inside, (slots >= start) & (slots < stop))] = True
    return seen & near if pattern.windows_hold else seen


def _in_blocks(start: int, stop: int, blocks: Blocks) -> NDArray[np.int64]:
    """Positions from `start` to `stop` that are in a block."""
    parts = [np.arange(max(first, start), min(last, stop), dtype=np.int64) for first, last in blocks]
    return np.concatenate([np.empty(0, np.int64), *parts])


KINDS = Registry(
    "unknown decoder inputs in the bundle",
    {"in_place": InPlace, "static": Static},
    BundleError,
    advice="upgrade edgevlm-runtime",
)
"""`StepInputs.kind` to what makes the inputs."""


def make_step_inputs(info: StepInputs, cache_rows: int | None, pattern: Pattern) -> CacheInputs:
    """The inputs that `info` names. `cache_rows`: the cache's length where the graph fixes it.

    Raises `BundleError` for a kind that this runtime does not know, or a graph that is not of this kind.
    """
    made: CacheInputs = KINDS.get(info.kind)(info, cache_rows, pattern)
    return made
