"""What of a bundle can run on an engine of its own, and what it does there: the same work for every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from edgevlm_runtime.decoding.attention import chunks
from edgevlm_runtime.decoding.decoder import Decoder, DecoderRun
from edgevlm_runtime.decoding.tuning import POSITIONS
from edgevlm_runtime.engines.base import Array, Graph
from edgevlm_runtime.errors import BundleError
from edgevlm_runtime.pipeline import Pipeline

STEPS = 16
"""Tokens that a decoder computes one by one, after a prompt."""

Outputs = dict[str, Array]
Graphs = Mapping[str, Graph]


@dataclass(frozen=True)
class Stage:
    """Graphs that stay together, and their work."""

    name: str
    """That of the first graph."""
    graphs: tuple[str, ...]
    """By name, as the bundle has them."""
    prepare: Callable[[Graphs], Callable[[], Outputs]]
    """From these graphs to a function that does the work once: its outputs are arrays of rows."""


def stages(parts: Pipeline) -> Iterator[Stage]:
    """Vision encoder and projector over the self-test's picture, the decoder (and prefill graph) over a prompt and some
    tokens. Raises `BundleError` for a bundle without a self-test."""
    stored = parts.manifest.self_test
    if stored is None:
        raise BundleError(f"engines cannot be compared: {parts.bundle.path} has no self-test: export the model again")
    prepared = parts.prepare(parts.bundle.file(stored.image)).prepared
    pictures = list(parts.encoder.batches(prepared.feeds))
    projector = parts.encoder.projector
    found = [parts.encoder.vision.run(feeds) for feeds in pictures]
    features = [{name: one[name] for name in projector.inputs} for one in found]
    yield Stage("vision_encoder", ("vision_encoder",), lambda graphs: _over(graphs["vision_encoder"], pictures))
    yield Stage("projector", ("projector",), lambda graphs: _over(graphs["projector"], features))
    own = tuple(name for name in ("decoder", "prefill") if name in parts.graphs)
    yield Stage("decoder", own, lambda graphs: _decode(parts.with_graphs(graphs)))


def _over(graph: Graph, batches: list[dict[str, Array]]) -> Callable[[], Outputs]:
    def work() -> Outputs:
        runs = [graph.run(feeds) for feeds in batches]
        return {name: np.concatenate([_rows(one[name]) for one in runs]) for name in runs[0]}

    return work


def _decode(parts: Pipeline) -> Callable[[], Outputs]:
    decoder, positions = parts.decoder, parts.positions
    length = max(1, min(POSITIONS, parts.context_tokens - STEPS))
    steps = min(STEPS, parts.context_tokens - length)
    run = decoder.new_run(length + steps)
    random = np.random.default_rng(0)
    prompt = random.standard_normal((length, decoder.info.input_width)).astype(np.float32)
    tokens = random.integers(0, decoder.info.vocab_size, steps)

    def work() -> Outputs:
        run.kv.rewind(0)
        logits = [_prefill(decoder, run, prompt, parts)]
        for number, token in enumerate(tokens, length):
            logits.append(run.step(int(token), positions.feeds((), number, number + 1)).copy())
        return {"logits": np.stack(logits)}

    return work


def _prefill(decoder: Decoder, run: DecoderRun, prompt: Array, parts: Pipeline) -> Array:
    """Logits [vocab] behind the prompt, computed as `Context` does: the last position by the decoder itself."""
    last = np.zeros(1, dtype=np.int64)
    end = len(prompt) - 1 if decoder.prefill_graph is not None else len(prompt)
    logits: Array | None = None
    for start, stop in chunks(0, end, parts.prefill_chunk):
        feeds = parts.positions.feeds((), start, stop)
        if decoder.prefill_graph is not None:
            run.prefill(prompt[start:stop], feeds)
        else:
            logits = run.forward(prompt[start:stop], last + (stop - start - 1), feeds)[0]
    if logits is None:
        logits = run.forward(prompt[end:], last, parts.positions.feeds((), end, len(prompt)))[0]
    return logits


def _rows(array: Array) -> Array:
    rows: Array = array.reshape(-1, array.shape[-1])
    return rows
