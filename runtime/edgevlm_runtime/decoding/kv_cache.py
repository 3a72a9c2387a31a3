"""The KV cache of one session: allocated once, updated in place by the decoder graph, never grown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from edgevlm_runtime.bundle.decoder_info import KVLayout, StateInfo
from edgevlm_runtime.decoding.states import States
from edgevlm_runtime.engines.base import Array, Binding, Cache, Graph
from edgevlm_runtime.errors import EdgeVLMError


def fixed_rows(graph: Graph) -> int | None:
    """Length of the cache where the decoder graph fixes it."""
    port = graph.inputs.get("past_key_values.0.key")
    rows = port.shape[2] if port is not None and len(port.shape) == 4 else None
    return rows if isinstance(rows, int) else None


class KVCache:
    """Keys and values of every layer that has its own, each a buffer [1, kv_heads, capacity, head_dim], or as long as
    the graph says.

    `length` positions are valid; what lies beyond is left over from earlier questions and is never read. Memory is
    reserved for `capacity` but committed only where positions are written.
    """

    def __init__(self, graph: Graph, layout: KVLayout, capacity: int, states: Sequence[StateInfo] = ()) -> None:
        rows = fixed_rows(graph) or capacity
        shapes = [(1, heads, rows, dim) for heads, dim in map(layout.size, range(layout.layers))]
        self.capacity = capacity
        self._length = 0
        self.states = States(states)
        self._tensors: dict[tuple[str, str], Cache] = {
            (f"past_key_values.{layer}.{part}", f"present.{layer}.{part}"): graph.allocate(shape, layout.dtype)
            for layer, shape in enumerate(shapes)
            for part in ("key", "value")
        }

    @property
    def length(self) -> int:
        """Positions that hold valid keys and values."""
        return self._length

    @property
    def tensors(self) -> tuple[Cache, ...]:
        """The buffers, layer by layer, keys before values."""
        return tuple(self._tensors.values())

    def bind(self, binding: Binding) -> None:
        """Tie past and present of every layer to their one buffer."""
        for (past, present), tensor in self._tensors.items():
            binding.bind_cache(past, present, tensor)
        self.states.bind(binding)

    def check_room(self, positions: int) -> None:
        """Raise `EdgeVLMError` when this many positions do not fit: a graph would write beyond the buffer."""
        if not 0 <= positions <= self.capacity - self._length:
            raise EdgeVLMError(f"KV cache of {self.capacity} tokens cannot take {positions} after {self._length}")

    def advance(self, positions: int) -> None:
        """Count positions that a run has just written."""
        self.check_room(positions)
        self._length += positions
        self.states.advance()

    def reachable(self, length: int) -> int:
        """The most of the first `length` positions that `rewind` can keep: all, but for states that are overwritten."""
        return length if length == self._length else self.states.nearest(length)

    def snapshot(self) -> None:
        """Have what is carried beside keys and values kept, so that `rewind` can come back to the present length."""
        self.states.keep(self._length)

    @contextmanager
    def returning(self) -> Iterator[None]:
        """Within, positions may be appended, which are forgotten afterwards, whatever happens."""
        length = self._length
        with self.states.returning():
            try:
                yield
            finally:
                self._length = length

    def begin_with(self, layers: Array, length: int) -> None:
        """Hold `length` positions of `layers` [layers, 2, kv_heads, positions, head_dim], and nothing else; of a layer
        with fewer or smaller heads the first ones."""
        sizes = [(tensor.shape[1], tensor.shape[3]) for tensor in self.tensors]
        flat = layers.reshape(-1, *layers.shape[2:])
        self.take([rows[:heads, :, :dim] for rows, (heads, dim) in zip(flat, sizes, strict=True)], length)

    def take(
        self, buffers: Sequence[Array], length: int, states: Mapping[int, Mapping[str, Array]] | None = None
    ) -> None:
        """Hold the first `length` positions of `buffers` [kv_heads, positions, head_dim], one for each of `tensors`,
        and nothing else; `states`: what is carried beside them, by the number of positions."""
        self.rewind(0)
        self.check_room(length)
        for tensor, rows in zip(self._tensors.values(), buffers, strict=True):
            tensor.write(rows[None, :, :length])
        self.states.take(states or {}, length)
        self._length = length

    def rewind(self, length: int) -> None:
        """Keep the first `length` positions (see `reachable`) and forget the rest; keys and values are not cleared."""
        if not 0 <= length <= self._length:
            raise EdgeVLMError(f"cannot rewind the KV cache to {length}: it holds {self._length} tokens")
        if length < self._length:
            self.states.restore(length)
        self._length = length
