"""What a session's KV cache holds, position by position, and how a prompt gets into it.

A new prompt reuses the longest prefix it shares with what is there. Image positions are compared by the image they
stand for, not by the placeholder token, which is the same for every image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.decoder import Decoder, Logits
from edgevlm_runtime.embeddings import Rows
from edgevlm_runtime.image_cache import Embeddings
from edgevlm_runtime.positions.base import PositionScheme, SequenceLayout

Ids = NDArray[np.int64]
EmbeddingsOf = Callable[[int], Embeddings]
"""Embeddings [tokens, hidden] of the prompt's image with this number; called only for images that must be prefilled."""


@dataclass(frozen=True, slots=True)
class PromptSequence:
    """A prompt ready for the decoder: its tokens, where the images are among them, and which images they are."""

    token_ids: Ids
    """int64 [S], image tokens included."""
    layout: SequenceLayout
    image_keys: tuple[str, ...]
    """Identity of each image, by number (`ImageEncoder.key`)."""
    text: str = ""
    """What was tokenized."""

    def __len__(self) -> int:
        return int(self.token_ids.size)

    def image_stop(self, image: int) -> int:
        """Position after the last token of an image."""
        return max((span.stop for span in self.layout.images if span.image == image), default=0)


class Context:
    """One KV cache with the record of what is in it. For one thread at a time."""

    def __init__(self, decoder: Decoder, positions: PositionScheme, capacity: int, chunk: int) -> None:
        """`capacity`: tokens the cache holds; `chunk`: prompt positions run at once."""
        self._decoder = decoder
        self._positions = positions
        self._chunk = chunk
        self._run = decoder.new_run(capacity)
        self._held = np.zeros(capacity, dtype=np.int64)
        self._numbers: dict[str, int] = {}
        self._layout = SequenceLayout()

    @property
    def capacity(self) -> int:
        """Tokens the cache holds at most."""
        return self._run.kv.capacity

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self._run.kv.length

    def shared_prefix(self, prompt: PromptSequence) -> int:
        """Positions of `prompt` that are in the cache already; at least the last one is left, for its logits."""
        limit = min(self.length, len(prompt) - 1)
        differs = np.flatnonzero(self._held[:limit] != self._identities(prompt)[:limit])
        return int(differs[0]) if differs.size else max(limit, 0)

    def prefill(
        self, prompt: PromptSequence, embeddings_of: EmbeddingsOf, cancelled: Callable[[], bool] = lambda: False
    ) -> Logits | None:
        """Make the cache hold exactly `prompt`; logits [vocab] of its last position, None when cancelled before.

        Whatever happens midway, the cache then holds a true prefix of the prompt.
        """
        start = self.shared_prefix(prompt)
        self._begin(prompt, start)
        logits: Logits | None = None
        for chunk in range(start, len(prompt), self._chunk):
            if cancelled():
                return None
            stop = min(chunk + self._chunk, len(prompt))
            last = np.array([stop - chunk - 1], dtype=np.int64)
            logits = self._extend(prompt, chunk, stop, last, embeddings_of)[0]
        return logits

    def score(self, prompt: PromptSequence, embeddings_of: EmbeddingsOf) -> Logits:
        """Logits [S, vocab] of every position of `prompt`, computed from the start."""
        self._begin(prompt, 0)
        logits = np.empty((len(prompt), self._decoder.info.vocab_size), dtype=np.float32)
        for chunk in range(0, len(prompt), self._chunk):
            stop = min(chunk + self._chunk, len(prompt))
            rows = np.arange(stop - chunk, dtype=np.int64)
            logits[chunk:stop] = self._extend(prompt, chunk, stop, rows, embeddings_of)
        return logits

    def step(self, token_id: int) -> Logits:
        """Append a generated token; its logits [vocab], in a buffer that the next step overwrites."""
        place = self.length
        feeds = self._positions.feeds(self._layout, place, place + 1)
        logits = self._run.step(token_id, feeds)
        self._held[place] = token_id
        return logits

    def peek(self, token_ids: Ids) -> Logits:
        """Logits [n, vocab] after each of `token_ids` [n], had they been generated; the cache is then as it was."""
        place, count = self.length, token_ids.size
        embeddings = np.empty((count, self._decoder.info.hidden_size), dtype=np.float32)
        self._decoder.embeddings.gather(token_ids, embeddings)
        feeds = self._positions.feeds(self._layout, place, place + count)
        logits = self._run.prefill(embeddings, np.arange(count, dtype=np.int64), feeds)
        self._run.kv.rewind(place)
        return logits

    def _begin(self, prompt: PromptSequence, start: int) -> None:
        self._run.kv.rewind(start)
        self._layout = prompt.layout
        self._held[start : len(prompt)] = self._identities(prompt)[start:]

    def _extend(self, prompt: PromptSequence, start: int, stop: int, rows: Ids, embeddings_of: EmbeddingsOf) -> Logits:
        embeddings = self._embed(prompt, start, stop, embeddings_of)
        feeds = self._positions.feeds(prompt.layout, start, stop)
        return self._run.prefill(embeddings, rows, feeds)

    def _embed(self, prompt: PromptSequence, start: int, stop: int, embeddings_of: EmbeddingsOf) -> Rows:
        """Decoder inputs [stop - start, hidden]: token embeddings, image embeddings over the image tokens."""
        out = np.empty((stop - start, self._decoder.info.hidden_size), dtype=np.float32)
        text = np.ones(stop - start, dtype=np.bool_)
        for span in prompt.layout.images:
            first, last = max(span.start, start), min(span.stop, stop)
            if first >= last:
                continue
            row = span.row + first - span.start
            out[first - start : last - start] = embeddings_of(span.image)[row : row + last - first]
            text[first - start : last - start] = False
        tokens = np.empty((int(text.sum()), out.shape[1]), dtype=np.float32)
        self._decoder.embeddings.gather(prompt.token_ids[start:stop][text], tokens)
        out[text] = tokens
        return out

    def _identities(self, prompt: PromptSequence) -> Ids:
        """One number a position: the token id for text; for images, negative, one for each image and row."""
        identities = prompt.token_ids.copy()
        for span in prompt.layout.images:
            number = self._numbers.setdefault(prompt.image_keys[span.image], len(self._numbers))
            rows = np.arange(span.row, span.row + span.length, dtype=np.int64)
            identities[span.start : span.stop] = -1 - rows - (number << 32)
        return identities
