"""What a session's KV cache holds, position by position, and how a prompt gets into it.

A new prompt reuses the longest prefix it shares with what is there. Image positions are compared by the image or tile
they stand for, not by the placeholder token, which is the same for every image. What the bundle knows beforehand
(`edgevlm_runtime.decoding.baked_prefix`) is one more prefix: where it is longer than what is there, it takes its place.
Where tokens see later ones (`edgevlm_runtime.decoding.attention`), no more is reused than what these cannot change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain, count, pairwise

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.decoding.attention import Blocks, chunks, get_pattern, reusable
from edgevlm_runtime.decoding.baked_prefix import BakedPrefix, common_prefix
from edgevlm_runtime.decoding.decoder import Decoder, Logits
from edgevlm_runtime.decoding.embeddings import Rows
from edgevlm_runtime.decoding.kept.held import Contents, Held
from edgevlm_runtime.decoding.kept.identities import UNKNOWN, identify, image_numbers, renumbered
from edgevlm_runtime.decoding.positions import PositionScheme
from edgevlm_runtime.engines.base import Array
from edgevlm_runtime.text.layout import ImageSpans, Prompt
from edgevlm_runtime.vision.cache import Embeddings

Ids = NDArray[np.int64]
PREFILL_GRAPH_FROM = 24
"""Fewer positions are computed by the decoder graph: one more graph's weights would have to be read for them. They were
even at 20 positions with a decoder in 4 bits, at 56 with one in 8 (SmolVLM-256M shape, two cores with AVX512-VNNI)."""
EmbeddingsOf = Callable[[int], Embeddings]
"""Rows [tokens, row width] of the prompt's image with this number; called only for images that must be prefilled."""


class Context:
    """One KV cache with the record of what is in it. For one thread at a time."""

    def __init__(
        self,
        decoder: Decoder,
        positions: PositionScheme,
        capacity: int,
        chunk: int,
        baked: BakedPrefix | None = None,
        rows: int | None = None,
    ) -> None:
        """`capacity`: tokens the cache holds; `chunk`: prompt positions run at once; `baked`: what is known before;
        `rows`: positions that get logits at once, where the graph bounds them."""
        self._decoder = decoder
        self._positions = positions
        self._chunk = chunk
        self._baked = baked
        self._rows = rows or capacity
        self._run = decoder.new_run(capacity)
        self._held = np.zeros(capacity, dtype=np.int64)
        self._numbers: dict[str, int] = {}
        self._images: ImageSpans = ()
        self._blocks_of = get_pattern(decoder.info.attention).blocks

    @property
    def capacity(self) -> int:
        """Tokens the cache holds at most."""
        return self._run.kv.capacity

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self._run.kv.length

    def blocks(self, prompt: Prompt) -> Blocks:
        """Which positions of `prompt` see later ones (`decoding.attention`)."""
        return self._blocks_of(prompt)

    def shareable(self, prompt: Prompt) -> bool:
        """Whether another prompt could use any of what is held of `prompt`."""
        return reusable(len(prompt) - 1, self._blocks_of(prompt)) > 0

    def held(self) -> Held:
        """What the cache holds; for the host's engines its own memory, until it changes."""
        length, kv = self.length, self._run.kv
        ids, keys = self._held[:length], {number: key for key, number in self._numbers.items()}
        numbers = image_numbers(ids)
        ids = renumbered(ids, {number: place for place, number in enumerate(numbers)})
        states = kv.states.copies(length)
        contents = Contents(ids, tuple(keys[number] for number in numbers), tuple(sorted(states)))
        return Held(contents, [tensor.host()[0, :, :length] for tensor in kv.tensors], states)

    def hold(self, prompt: Prompt, held: Held, length: int) -> None:
        """Hold the first `length` positions of `held`, which are those of `prompt`, and nothing else."""
        kv = self._run.kv
        kv.rewind(0)
        self._held[:length] = self._identities(prompt)[:length]
        kv.take(held.rows, length, held.states)

    def shared_prefix(self, prompt: Prompt) -> int:
        """Positions of `prompt` that need not run; at least the last one is left, for its logits."""
        identities = identify(prompt, lambda key: self._numbers.get(key, UNKNOWN))
        blocks = self._blocks_of(prompt)
        return max(self._in_cache(identities, blocks), self._in_bundle(identities, blocks))

    def prefill(
        self, prompt: Prompt, embeddings_of: EmbeddingsOf, cancelled: Callable[[], bool] = lambda: False
    ) -> Logits | None:
        """Make the cache hold exactly `prompt`; logits [vocab] of its last position.

        None when cancelled before that, and for an empty prompt.

        Whatever happens midway, the cache then holds a true prefix of the prompt.
        """
        identities, blocks = self._identities(prompt), self._blocks_of(prompt)
        cached = self._in_cache(identities, blocks)
        start = max(cached, self._in_bundle(identities, blocks))
        if self._baked is not None and start > cached:
            self._baked.copy(self._run.kv, start)
        self._begin(prompt, identities, start)
        logits: Logits | None = None
        cut = self._prefill_until(start, len(prompt), blocks)
        for begin, end in pairwise([start, *self._snapshot_places(prompt), len(prompt)]):
            for first, stop in chunks(begin, min(end, cut), self._chunk, blocks):
                if cancelled():
                    return None
                rows = self._embed(prompt, first, stop, embeddings_of)
                self._run.prefill(rows, self._feeds(prompt, first, stop), blocks)
            for first, stop in chunks(max(begin, cut), end, self._chunk, blocks):
                if cancelled():
                    return None
                last = np.array([stop - first - 1], dtype=np.int64)
                logits = self._extend(prompt, first, stop, last, embeddings_of)[0]
            if end < len(prompt):
                self._run.kv.snapshot()
        return logits

    def score(self, prompt: Prompt, embeddings_of: EmbeddingsOf, rows: Ids | None = None) -> Logits:
        """Logits [R, vocab] of the positions `rows` of `prompt` (in order; all unless given), computed from the start.

        What follows the bundle's prefix attends to that, as when a question is answered. The decoder's graph computes
        the logits; what they attend to before their own chunk comes from the prefill graph, where there is one.
        """
        identities, blocks = self._identities(prompt), self._blocks_of(prompt)
        baked = self._in_bundle(identities, blocks)
        self._begin(prompt, identities, 0)
        wanted = np.arange(len(prompt), dtype=np.int64) if rows is None else rows
        logits = np.empty((wanted.size, self._decoder.info.vocab_size), dtype=np.float32)
        size = min(self._chunk, self._rows)
        for chunk, stop in chain(chunks(0, baked, size, blocks), chunks(baked, len(prompt), size, blocks)):
            if chunk == baked > 0 and self._baked is not None:
                self._baked.copy(self._run.kv, baked)
            embeddings, feeds = self._embed(prompt, chunk, stop, embeddings_of), self._feeds(prompt, chunk, stop)
            first, last = np.searchsorted(wanted, (chunk, stop))
            for begin in range(first, max(last, first + 1), self._rows):
                self._run.kv.rewind(chunk)  # a block may have more rows than the graph gives logits of at once
                end = min(begin + self._rows, last)
                here = wanted[begin:end] - chunk if end > begin else np.zeros(1, dtype=np.int64)  # a graph wants one
                logits[begin:end] = self._run.score(embeddings, here, feeds, blocks)[: end - begin]
        return logits

    def step(self, token_id: int) -> Logits:
        """Append a generated token; its logits [vocab], in a buffer that the next step overwrites."""
        place = self.length
        feeds = self._positions.feeds(self._images, place, place + 1)
        logits = self._run.step(token_id, feeds)
        self._held[place] = token_id
        return logits

    def extend(self, token_ids: Ids) -> Logits:
        """Append generated tokens [n] in as few runs as there are chunks; logits [n, vocab] after each."""
        size = min(self._chunk, self._rows)
        parts = []
        for start, stop in chunks(0, token_ids.size, size):
            place = self.length
            parts.append(self._appended(token_ids[start:stop]))
            self._held[place : place + stop - start] = token_ids[start:stop]
        return np.concatenate(parts)

    def peek(self, token_ids: Ids) -> Logits:
        """Logits [n, vocab] after each of `token_ids` [n], had they been generated; the cache is then as it was."""
        size = min(self._chunk, self._rows)
        with self._run.kv.returning():  # what a failed run leaves behind is not what `_held` says
            parts = [self._appended(token_ids[start:stop]) for start, stop in chunks(0, token_ids.size, size)]
        return np.concatenate(parts)

    @property
    def can_forget(self) -> bool:
        """Whether `forget` can go back to any length: not where states are overwritten."""
        return not self._run.kv.states

    def forget(self, length: int) -> None:
        """Keep the first `length` positions alone. Raises `EdgeVLMError` where that cannot be (`can_forget`)."""
        self._run.kv.rewind(length)

    def _appended(self, token_ids: Ids) -> Logits:
        place, count = self.length, token_ids.size
        embeddings = self._inputs(token_ids, np.ones(count, dtype=np.bool_))
        feeds = self._positions.feeds(self._images, place, place + count)
        return self._run.forward(embeddings, np.arange(count, dtype=np.int64), feeds)

    def _in_cache(self, identities: Ids, blocks: Blocks) -> int:
        shared = reusable(common_prefix(self._held[: self.length], identities[:-1]), blocks)
        return self._run.kv.reachable(shared)

    def _in_bundle(self, identities: Ids, blocks: Blocks) -> int:
        return 0 if self._baked is None else reusable(self._baked.shared(identities[:-1]), blocks)

    def _snapshot_places(self, prompt: Prompt) -> list[int]:
        """Where states that are overwritten are copied: behind each image, which is what further questions share."""
        if not self._run.kv.states:
            return []
        stops = {prompt.image_stop(span.image) for span in prompt.images}
        return sorted(stop for stop in stops if self.length < stop < len(prompt))

    def _begin(self, prompt: Prompt, identities: Ids, start: int) -> None:
        """Keep the first `start` positions, which the cache has; what follows will be those of `prompt`."""
        self._run.kv.rewind(start)
        self._images = prompt.images
        known = prompt.known_by
        self._numbers = {key: number for key, number in self._numbers.items() if key in known}
        self._held[: len(prompt)] = identities

    def _extend(self, prompt: Prompt, start: int, stop: int, rows: Ids, embeddings_of: EmbeddingsOf) -> Logits:
        embeddings = self._embed(prompt, start, stop, embeddings_of)
        return self._run.forward(embeddings, rows, self._feeds(prompt, start, stop), self._blocks_of(prompt))

    def _feeds(self, prompt: Prompt, start: int, stop: int) -> Mapping[str, Array]:
        return self._positions.feeds(prompt.images, start, stop)

    def _prefill_until(self, start: int, stop: int, blocks: Blocks) -> int:
        """Where the prefill graph's part ends: all but the last position, whose logits are wanted, and the block that
        it is in; none for few."""
        worth = self._decoder.prefill_graph is not None and stop - start >= PREFILL_GRAPH_FROM
        return max(start, reusable(stop - 1, blocks)) if worth else start

    def _embed(self, prompt: Prompt, start: int, stop: int, embeddings_of: EmbeddingsOf) -> Rows:
        """Decoder inputs [stop - start, input width]: token embeddings, and over the image tokens the images' rows."""
        text = np.ones(stop - start, dtype=np.bool_)
        parts = [span for span in prompt.images if max(span.start, start) < min(span.stop, stop)]
        for span in parts:
            text[max(span.start, start) - start : min(span.stop, stop) - start] = False
        out, width = self._inputs(prompt.token_ids[start:stop], text), self._decoder.info.row_width
        for span in parts:
            first, last = max(span.start, start), min(span.stop, stop)
            row = span.row + first - span.start
            out[first - start : last - start, :width] = embeddings_of(span.image)[row : row + last - first]
        return out

    def _inputs(self, token_ids: Ids, text: NDArray[np.bool_]) -> Rows:
        """Decoder inputs [n, input width]; of image tokens, which are not `text` [n], without the images' rows."""
        info, embeddings = self._decoder.info, self._decoder.embeddings
        tokens = np.empty((int(text.sum()), info.hidden_size), dtype=np.float32)
        embeddings.gather(token_ids[text], tokens)
        if info.input_width == info.hidden_size and text.all():
            return tokens
        rows = np.zeros((token_ids.size, info.input_width), dtype=np.float32)
        rows[text, : info.hidden_size] = tokens
        if info.token_columns:
            embeddings.gather_columns(token_ids, rows[:, info.row_width :])
        return rows

    def _identities(self, prompt: Prompt) -> Ids:
        """One number per position (`decoding.identities`)."""
        return identify(prompt, self._number)

    def _number(self, key: str) -> int:
        """What stands for an image or tile as long as it is in the cache; a session may be shown millions."""
        if key not in self._numbers:
            used = set(self._numbers.values())
            self._numbers[key] = next(number for number in count() if number not in used)
        return self._numbers[key]
