"""Run the decoder graph over a KV cache: chunks of a prompt, then one token at a time.

Graph inputs: `inputs_embeds` [1, S, hidden], `logits_rows` int64 [K] (which of the S positions get logits), what the
graph is told about the cache (`decoding.step_inputs`), what the positions scheme adds (`position_ids`), and the
cache. Output: `logits` [1, K, vocab].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.bundle.decoder_info import DecoderInfo
from edgevlm_runtime.decoding.attention import Blocks, get_pattern
from edgevlm_runtime.decoding.embeddings import Rows, TokenEmbeddings
from edgevlm_runtime.decoding.kv_cache import KVCache, fixed_rows
from edgevlm_runtime.decoding.step_inputs import make_step_inputs
from edgevlm_runtime.engines.base import Array, Binding, Graph
from edgevlm_runtime.errors import BundleError

Logits = NDArray[np.float32]
NO_FEEDS: Mapping[str, Array] = {}

_OWN_INPUTS = ("inputs_embeds", "logits_rows")
_CARRIED = ("past_key_values.", "past_state.")
"""How the inputs begin that a run leaves for the next one."""


class Decoder:
    """The decoder graph of a bundle with its embeddings; shared by sessions, safe from any thread."""

    def __init__(
        self,
        graph: Graph,
        info: DecoderInfo,
        embeddings: TokenEmbeddings,
        prefill_graph: Graph | None = None,
        where: str = "this bundle",
    ) -> None:
        """`prefill_graph` appends prompts to the cache of `graph`, without logits; None where `graph` does it itself.
        `where`: the bundle, for errors.

        Raises `BundleError` when a graph is not the one that `info` describes.
        """
        self.graph = graph
        self.prefill_graph = prefill_graph
        self.info = info
        self.embeddings = embeddings
        self.where = where
        columns = tuple(columns.name for columns in info.columns)
        self.extra_inputs = tuple(
            name for name in graph.inputs if name not in (*_OWN_INPUTS, *columns) and not name.startswith(_CARRIED)
        )
        """What each run is told beside embeddings, rows and cache."""
        self.step_inputs = make_step_inputs(info.step_inputs, fixed_rows(graph), get_pattern(info.attention))
        for name in columns:
            if name in (*_OWN_INPUTS, *self.step_inputs.names) or name.startswith(_CARRIED):
                raise BundleError(f"the decoder's columns {name!r} are called as another input: export the model again")
        told = (*columns, *self.step_inputs.names)
        _check_graph(graph, info, (*_OWN_INPUTS, *told), ("logits",))
        if prefill_graph is not None:
            _check_graph(prefill_graph, info, (_OWN_INPUTS[0], *told), ())

    def new_run(self, capacity: int) -> DecoderRun:
        """A KV cache of `capacity` tokens with the graph bound to it."""
        return DecoderRun(self, KVCache(self.graph, self.info.kv, capacity, self.info.states))


class DecoderRun:
    """The decoder over one KV cache. For one thread at a time.

    The cache is bound once to each of two bindings: one for prompt chunks of any length, one for single tokens whose
    buffers never change, so that a decoding step writes a few numbers and runs. A prefill graph has a third.
    """

    def __init__(self, decoder: Decoder, kv: KVCache) -> None:
        self.kv = kv
        self._decoder = decoder
        self._chunk = self._bound(decoder.graph)
        self._single = self._bound(decoder.graph)
        self._prefill = None if decoder.prefill_graph is None else self._bound(decoder.prefill_graph)
        hidden, vocab = decoder.info.hidden_size, decoder.info.vocab_size
        self._embedding = np.zeros((1, 1, hidden), dtype=np.float32)
        self._logits = np.zeros((1, 1, vocab), dtype=np.float32)
        self._last: Logits = self._logits[0, 0]
        self._extra: dict[str, Array] = {}
        self._single.bind_input("inputs_embeds", self._embedding)
        self._single.bind_input("logits_rows", np.zeros(1, dtype=np.int64))
        self._single.bind_output("logits", self._logits)
        self._columns = {one.name: np.zeros((1, 1, one.width), dtype=np.float32) for one in decoder.info.columns}
        for name, array in self._columns.items():
            self._single.bind_input(name, array)
        self._token_columns = [self._columns[one.name][0, 0] for one in decoder.info.token_columns]
        first = decoder.step_inputs.feeds(0, 1)
        for name in decoder.step_inputs.names:
            self._feed(name, first[name])

    def forward(
        self,
        embeddings: Rows,
        rows: NDArray[np.int64],
        feeds: Mapping[str, Array] = NO_FEEDS,
        blocks: Blocks = (),
    ) -> Logits:
        """Append S positions to the cache: `embeddings` [S, width] (`DecoderInfo.input_width`); logits [K, vocab] of
        `rows` [K] among them. `blocks`: see `decoding.attention`.

        The cache counts the positions only when the run succeeds. Raises `EdgeVLMError` when it does not, and
        `BundleError` for logits that are not numbers.
        """
        logits = np.empty((1, rows.size, self._decoder.info.vocab_size), dtype=np.float32)
        self._chunk.bind_input("logits_rows", np.ascontiguousarray(rows, dtype=np.int64))
        self._chunk.bind_output("logits", logits)
        self._append(self._chunk, embeddings, feeds, blocks)
        return self._checked(logits[0])

    def prefill(self, embeddings: Rows, feeds: Mapping[str, Array] = NO_FEEDS, blocks: Blocks = ()) -> None:
        """Append S positions to the cache by the prefill graph, as `forward` does; no logits.

        Only where the decoder has such a graph (`Decoder.prefill_graph`). Raises `EdgeVLMError` when the run fails.
        """
        assert self._prefill is not None
        self._append(self._prefill, embeddings, feeds, blocks)

    def score(
        self,
        embeddings: Rows,
        rows: NDArray[np.int64],
        feeds: Mapping[str, Array] = NO_FEEDS,
        blocks: Blocks = (),
    ) -> Logits:
        """As `forward`, with the cache left as a prompt leaves it: filled by the prefill graph, where there is one."""
        if self._prefill is None:
            return self.forward(embeddings, rows, feeds, blocks)
        with self.kv.returning():
            logits = self.forward(embeddings, rows, feeds, blocks)
        self.prefill(embeddings, feeds, blocks)
        return logits

    def step(self, token_id: int, feeds: Mapping[str, Array] = NO_FEEDS) -> Logits:
        """Append one generated token; its logits [vocab], in a buffer that the next step overwrites. Raises as
        `forward` does."""
        self._decoder.embeddings.one(token_id, self._embedding[0, 0])
        if self._token_columns:
            self._decoder.embeddings.one_columns(token_id, self._token_columns)
        feeds = self._feeds(1, feeds)
        for name in self._decoder.extra_inputs:
            self._feed(name, feeds[name])
        self._run(self._single, 1)
        return self._checked(self._last)

    def _checked(self, logits: Logits) -> Logits:
        """Logits [..., vocab] that are numbers; single tokens may be as good as impossible (-inf).

        Raises `BundleError`. A row's maximum is all that is looked at: one that is no number is the maximum.
        """
        if not np.isfinite(logits.max(axis=-1)).all():
            raise BundleError(
                f"the decoder of {self._decoder.where} computes logits that are not numbers: "
                "export it in a higher precision, or copy it again"
            )
        return logits

    def _append(self, binding: Binding, embeddings: Rows, feeds: Mapping[str, Array], blocks: Blocks) -> None:
        """Run a graph over positions whose number changes from call to call."""
        positions, first = embeddings.shape[0], self._decoder.info.hidden_size
        binding.bind_input("inputs_embeds", np.ascontiguousarray(embeddings[:, :first])[None])
        for columns in self._decoder.info.columns:
            last = first + columns.width
            binding.bind_input(columns.name, np.ascontiguousarray(embeddings[:, first:last])[None])
            first = last
        feeds = self._feeds(positions, feeds, blocks)
        for name in self._decoder.extra_inputs:
            binding.bind_input(name, np.asarray(feeds[name], order="C"))
        self._run(binding, positions)

    def _feeds(self, positions: int, feeds: Mapping[str, Array], blocks: Blocks = ()) -> Mapping[str, Array]:
        """What the graph is told about the cache before `positions` tokens are appended, and about their places."""
        self.kv.check_room(positions)
        return {**self._decoder.step_inputs.feeds(self.kv.length, positions, blocks), **feeds}

    def _feed(self, name: str, value: Array) -> None:
        """Copy a small input of a step into its buffer, bound the first time."""
        buffer = self._extra.get(name)
        if buffer is None:
            buffer = self._extra[name] = np.array(value, order="C")
            self._single.bind_input(name, buffer)
        buffer[...] = value

    def _run(self, binding: Binding, positions: int) -> None:
        binding.run()
        self.kv.advance(positions)

    def _bound(self, graph: Graph) -> Binding:
        binding = graph.binding()
        self.kv.bind(binding)
        return binding


def _check_graph(graph: Graph, info: DecoderInfo, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    _check_names(graph, inputs, outputs)
    if info.kv.layers > len(graph.inputs):  # before a name is made for each of as many as a manifest may ask for
        raise BundleError(f"the decoder graph has no input for each of {info.kv.layers} layers: export the model again")
    parts = [f"{layer}.{part}" for layer in range(info.kv.layers) for part in ("key", "value")]
    wanted = {f"past_key_values.{part}": info.kv.dtype for part in parts}
    _check_names(graph, wanted, [f"present.{part}" for part in parts])
    states = [state.name for state in info.states]
    _check_names(graph, [f"past_state.{name}" for name in states], [f"present_state.{name}" for name in states])
    for state in info.states:
        port = graph.inputs[f"past_state.{state.name}"]
        if (port.dtype, tuple(port.shape)) != (np.dtype(state.dtype), state.shape):
            raise BundleError(
                f"the decoder's state {state.name!r} is {port.dtype} {tuple(port.shape)}, not {state.dtype} "
                f"{state.shape} as the manifest says: export the model again"
            )
    _check_sizes(graph, info, outputs)
    for name, dtype in wanted.items():
        if graph.inputs[name].dtype != np.dtype(dtype):
            found = graph.inputs[name].dtype
            raise BundleError(f"the decoder's {name!r} holds {found}, not {dtype} as the manifest says: export again")


def _check_sizes(graph: Graph, info: DecoderInfo, outputs: Iterable[str]) -> None:
    """The manifest's sizes are the graph's, where it fixes them: buffers are made by them, before anything runs."""
    sizes = [("hidden_size", graph.inputs["inputs_embeds"].shape, -1, info.hidden_size)]
    sizes += [(columns.name, graph.inputs[columns.name].shape, -1, columns.width) for columns in info.columns]
    for layer in range(info.kv.layers):
        cache, (heads, dim) = graph.inputs[f"past_key_values.{layer}.key"].shape, info.kv.size(layer)
        sizes += [("kv.kv_heads", cache, 1, heads), ("kv.head_dim", cache, -1, dim)]
    sizes += [("vocab_size", graph.outputs[name].shape, -1, info.vocab_size) for name in outputs]
    for name, shape, axis, told in sizes:
        size = shape[axis] if len(shape) > 1 else None
        if isinstance(size, int) and size != told:
            raise BundleError(
                f"the decoder graph has a {name} of {size}, not {told} as the manifest says: export the model again"
            )


def _check_names(graph: Graph, inputs: Iterable[str], outputs: Iterable[str]) -> None:
    for names, ports, what in ((inputs, graph.inputs, "input"), (outputs, graph.outputs, "output")):
        for name in names:
            if name not in ports:
                raise BundleError(f"the decoder graph has no {what} {name!r}: export the model again")
