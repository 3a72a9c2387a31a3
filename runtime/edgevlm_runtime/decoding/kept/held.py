"""What a KV cache holds, as data: to be kept elsewhere, and to be held again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from edgevlm_runtime.bundle.decoder_info import DecoderInfo
from edgevlm_runtime.decoding.attention import Blocks, reusable
from edgevlm_runtime.decoding.baked_prefix import common_prefix
from edgevlm_runtime.decoding.kept.identities import UNKNOWN, Ids, identify
from edgevlm_runtime.engines.base import Array
from edgevlm_runtime.text.layout import Prompt

_LENGTH_BYTES = 8
_LARGEST_HEAD = 1 << 20
_MOST_POSITIONS = 1 << 24


@dataclass(frozen=True, slots=True)
class _Head:
    """The beginning of the stored form, as JSON."""

    images: list[str]
    positions: int
    places: list[int]


@dataclass(frozen=True, slots=True)
class Contents:
    """Which positions are held."""

    ids: Ids
    """One number each (`decoding.identities`)."""
    images: tuple[str, ...]
    """Keys of the images and tiles, by their number there."""
    places: tuple[int, ...] = ()
    """Where states that are overwritten were copied, in order."""

    def shared(self, prompt: Prompt, blocks: Blocks, states: bool) -> int:
        """How many positions of `prompt` need not run; at least the last one is left, for its logits."""
        numbers = {key: number for number, key in enumerate(self.images)}
        wanted = identify(prompt, lambda key: numbers.get(key, UNKNOWN))
        length = reusable(common_prefix(self.ids, wanted[:-1]), blocks)
        return max((place for place in self.places if place <= length), default=0) if states else length

    def head(self) -> bytes:
        """The stored form's beginning: its length, JSON, then `ids`."""
        text = msgspec.json.encode(_Head(list(self.images), int(self.ids.size), list(self.places)))
        return len(text).to_bytes(_LENGTH_BYTES, "little") + text + self.ids.astype("<i8").tobytes()

    @classmethod
    def read(cls, take: Callable[[int], bytes]) -> Contents | None:
        """From the stored form; `take` gives its next so many bytes. None for what is none."""
        length = int.from_bytes(take(_LENGTH_BYTES), "little")
        if length > _LARGEST_HEAD:
            return None
        try:
            head = msgspec.json.decode(take(length), type=_Head)
        except (ValueError, RecursionError):
            return None
        if not 0 < head.positions <= _MOST_POSITIONS or not all(0 < p <= head.positions for p in head.places):
            return None
        data = take(8 * head.positions)
        if len(data) != 8 * head.positions:
            return None
        return cls(np.frombuffer(data, "<i8").astype(np.int64), tuple(head.images), tuple(head.places))


@dataclass(frozen=True, slots=True)
class Held:
    """Positions with their keys and values."""

    contents: Contents
    rows: Sequence[Array]
    """[kv_heads, positions, head_dim] for each buffer of the cache: layer by layer, keys before values."""
    states: Mapping[int, Mapping[str, Array]]
    """What is carried beside them, at each of `Contents.places`."""

    def parts(self) -> list[bytes | memoryview]:
        """The stored form."""
        arrays = [
            *self.rows,
            *(self.states[place][name] for place in self.contents.places for name in self.states[place]),
        ]
        return [self.contents.head(), *(np.ascontiguousarray(array).data.cast("B") for array in arrays)]

    @classmethod
    def read(cls, data: bytes, info: DecoderInfo) -> Held | None:
        """From the stored form; `info`: the decoder it was computed with. None for what is none."""
        reader = _Reader(data)
        contents = Contents.read(reader.take)
        if contents is None:
            return None
        positions, kv = contents.ids.size, info.kv
        shapes = [(heads, positions, dim) for heads, dim in map(kv.size, range(kv.layers)) for _ in range(2)]
        rows = [reader.array(shape, kv.dtype) for shape in shapes]
        states = {
            place: {state.name: reader.array(state.shape, state.dtype) for state in info.states}
            for place in contents.places
        }
        return cls(contents, rows, states) if reader.whole else None


class _Reader:
    """Takes bytes apart. Too few of them give zeros, and are not `whole`."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._place = 0

    @property
    def whole(self) -> bool:
        """Whether exactly all was taken."""
        return self._place == len(self._data)

    def take(self, count: int) -> bytes:
        """The next `count` bytes, or what is left of them."""
        self._place += count
        return bytes(self._data[self._place - count : self._place])

    def array(self, shape: tuple[int, ...], dtype: str) -> Array:
        """The next array."""
        count = math.prod(shape)
        begin, self._place = self._place, self._place + count * np.dtype(dtype).itemsize
        if self._place > len(self._data):
            return np.zeros(0, dtype)
        return np.frombuffer(self._data, dtype, count, begin).reshape(shape)
