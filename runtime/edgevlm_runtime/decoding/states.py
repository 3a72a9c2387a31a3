"""What layers carry beside keys and values: the last inputs of a convolution, the matrix of a linear attention.

Such a state is overwritten at each run, so a cache that has any can only go back to where a copy was kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from edgevlm_runtime.bundle.decoder_info import StateInfo
from edgevlm_runtime.engines.base import Array, Binding
from edgevlm_runtime.errors import EdgeVLMError

KEPT = 4
"""Copies at once; the shortest prefixes stay longest, for they are what other prompts share."""


class States:
    """The states of one KV cache, and copies of them by the number of positions they stand for. For one thread."""

    def __init__(self, infos: Sequence[StateInfo]) -> None:
        self._past = {info.name: np.zeros(info.shape, info.dtype) for info in infos}
        self._present = {name: np.zeros_like(array) for name, array in self._past.items()}
        self._kept: dict[int, dict[str, Array]] = {}

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._past)

    def bind(self, binding: Binding) -> None:
        """Tie inputs and outputs to their buffers: a run that fails leaves what it began with."""
        for name, array in self._past.items():
            binding.bind_input(f"past_state.{name}", array)
            binding.bind_output(f"present_state.{name}", self._present[name])

    def advance(self) -> None:
        """A run has succeeded: what it gave is what the next one takes."""
        self._set(self._present)

    def nearest(self, length: int) -> int:
        """The longest prefix of at most `length` positions that `restore` can go back to."""
        return max((kept for kept in self._kept if kept <= length), default=0) if self else length

    def keep(self, length: int) -> None:
        """Copy the states, which stand for `length` positions."""
        if not self or length in self._kept:
            return
        if len(self._kept) == KEPT:
            del self._kept[max(self._kept)]
        self._kept[length] = self._copied()

    @contextmanager
    def returning(self) -> Iterator[None]:
        """Within, runs may change the states, which are as they were afterwards; what is kept stays as it is."""
        before = self._copied()
        try:
            yield
        finally:
            self._set(before)

    def restore(self, length: int) -> None:
        """Go back to `length` positions; copies of longer prefixes are forgotten. Raises `EdgeVLMError` where none was
        kept."""
        if not self:
            return
        if length and length not in self._kept:
            raise EdgeVLMError(f"cannot rewind to {length} tokens: the states there were overwritten")
        self._set(self._kept[length] if length else dict.fromkeys(self._past, 0))
        self._kept = {place: copy for place, copy in self._kept.items() if place <= length}

    def copies(self, length: int) -> dict[int, dict[str, Array]]:
        """What is kept, and what there is now, at `length` positions."""
        return {**self._kept, length: self._copied()} if self else {}

    def take(self, states: Mapping[int, Mapping[str, Array]], length: int) -> None:
        """Keep what `copies` gave elsewhere, up to `length` positions, and go there. Raises as `restore` does."""
        if not self:
            return
        self._kept = {
            place: {name: array.copy() for name, array in kept.items()}
            for place, kept in states.items()
            if place <= length
        }
        self.restore(length)

    def _copied(self) -> dict[str, Array]:
        return {name: array.copy() for name, array in self._past.items()}

    def _set(self, values: Mapping[str, Array | int]) -> None:
        """In place: the buffers are bound."""
        for name, array in self._past.items():
            array[...] = values[name]
