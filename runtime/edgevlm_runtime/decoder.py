"""Run the decoder graph over a KV cache: chunks of a prompt, then one token at a time.

Graph inputs: `inputs_embeds` [1, S, hidden], `seqlens_k` int32 [1] (past + S - 1), `total_sequence_length` int32 []
(past + S), `logits_rows` int64 [K] (which of the S positions get logits), what the positions scheme adds
(`position_ids`), and the cache. Output: `logits` [1, K, vocab].
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.embeddings import Rows, TokenEmbeddings
from edgevlm_runtime.engines.base import Array, Binding, Graph
from edgevlm_runtime.errors import BundleError
from edgevlm_runtime.kv_cache import KVCache
from edgevlm_runtime.manifest import DecoderInfo

Logits = NDArray[np.float32]
NO_FEEDS: Mapping[str, Array] = {}

_OWN_INPUTS = ("inputs_embeds", "seqlens_k", "total_sequence_length", "logits_rows")


class Decoder:
    """The decoder graph of a bundle with its embeddings; shared by sessions, safe from any thread."""

    def __init__(self, graph: Graph, info: DecoderInfo, embeddings: TokenEmbeddings) -> None:
        """Raises `BundleError` when the graph is not the one that `info` describes."""
        self.graph = graph
        self.info = info
        self.embeddings = embeddings
        self.extra_inputs = tuple(
            name for name in graph.inputs if name not in _OWN_INPUTS and not name.startswith("past_key_values.")
        )
        _check_graph(graph, info)

    def new_run(self, capacity: int) -> DecoderRun:
        """A KV cache of `capacity` tokens with the graph bound to it."""
        return DecoderRun(self, KVCache(self.graph, self.info.kv, capacity))


class DecoderRun:
    """The decoder over one KV cache. For one thread at a time.

    The cache is bound once to each of two bindings: one for prompt chunks of any length, one for single tokens whose
    buffers never change, so that a decoding step writes a few numbers and runs.
    """

    def __init__(self, decoder: Decoder, kv: KVCache) -> None:
        self.kv = kv
        self._decoder = decoder
        self._seqlens = np.zeros(1, dtype=np.int32)
        self._total = np.zeros((), dtype=np.int32)
        self._chunk = self._bound()
        self._single = self._bound()
        hidden, vocab = decoder.info.hidden_size, decoder.info.vocab_size
        self._embedding = np.zeros((1, 1, hidden), dtype=np.float32)
        self._logits = np.zeros((1, 1, vocab), dtype=np.float32)
        self._last: Logits = self._logits[0, 0]
        self._extra: dict[str, Array] = {}
        self._single.bind_input("inputs_embeds", self._embedding)
        self._single.bind_input("logits_rows", np.zeros(1, dtype=np.int64))
        self._single.bind_output("logits", self._logits)

    def prefill(self, embeddings: Rows, rows: NDArray[np.int64], feeds: Mapping[str, Array] = NO_FEEDS) -> Logits:
        """Append S positions to the cache: `embeddings` [S, hidden]; logits [K, vocab] of `rows` [K] among them.

        The cache counts the positions only when the run succeeds. Raises `EdgeVLMError` when it does not.
        """
        positions = embeddings.shape[0]
        logits = np.empty((1, rows.size, self._decoder.info.vocab_size), dtype=np.float32)
        self._chunk.bind_input("inputs_embeds", np.ascontiguousarray(embeddings)[None])
        self._chunk.bind_input("logits_rows", np.ascontiguousarray(rows, dtype=np.int64))
        self._chunk.bind_output("logits", logits)
        for name in self._decoder.extra_inputs:
            self._chunk.bind_input(name, np.ascontiguousarray(feeds[name]))
        self._run(self._chunk, positions)
        chunk: Logits = logits[0]
        return chunk

    def step(self, token_id: int, feeds: Mapping[str, Array] = NO_FEEDS) -> Logits:
        """Append one generated token; its logits [vocab], in a buffer that the next step overwrites."""
        self._decoder.embeddings.one(token_id, self._embedding[0, 0])
        for name in self._decoder.extra_inputs:
            self._feed(name, feeds[name])
        self._run(self._single, 1)
        return self._last

    def _feed(self, name: str, value: Array) -> None:
        """Copy a small input of a step into its buffer, bound the first time."""
        buffer = self._extra.get(name)
        if buffer is None:
            buffer = self._extra[name] = np.array(value, order="C")
            self._single.bind_input(name, buffer)
        buffer[...] = value

    def _run(self, binding: Binding, positions: int) -> None:
        total = self.kv.length + positions
        self.kv.check_room(positions)
        self._seqlens[0] = total - 1
        self._total[()] = total
        binding.run()
        self.kv.advance(positions)

    def _bound(self) -> Binding:
        binding = self._decoder.graph.binding()
        self.kv.bind(binding)
        binding.bind_input("seqlens_k", self._seqlens)
        binding.bind_input("total_sequence_length", self._total)
        return binding


def _check_graph(graph: Graph, info: DecoderInfo) -> None:
    parts = [f"{layer}.{part}" for layer in range(info.kv.layers) for part in ("key", "value")]
    wanted = {f"past_key_values.{part}": info.kv.dtype for part in parts}
    for name in (*_OWN_INPUTS, *wanted):
        if name not in graph.inputs:
            raise BundleError(f"the decoder graph has no input {name!r}: export the model again")
    for name in ("logits", *(f"present.{part}" for part in parts)):
        if name not in graph.outputs:
            raise BundleError(f"the decoder graph has no output {name!r}: export the model again")
    for name, dtype in wanted.items():
        if graph.inputs[name].dtype != np.dtype(dtype):
            found = graph.inputs[name].dtype
            raise BundleError(f"the decoder's {name!r} holds {found}, not {dtype} as the manifest says: export again")
