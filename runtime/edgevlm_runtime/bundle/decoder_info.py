"""The part of the manifest that the decoder is driven by."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class EmbeddingTable:
    """Token embeddings, read row by row from the memory-mapped weights: [vocab, hidden], row-major.

    `file` and `offset` point into an external-data file of a graph (tied embeddings are stored once) or into a file
    of their own. A row's value is `row * scale` (Gemma multiplies embeddings by sqrt(hidden); others have 1.0).

    `dtype` is a key of `decoding.embeddings.READERS`. The integer ones ("uint8", "uint4") hold each row in
    blocks of `block` values, the last one padded, each with a float32 scale at `scales_offset` [vocab, blocks] and,
    where there are zero points, one at `zero_points_offset` [vocab, blocks] packed like the rows; else the middle
    stands for zero.
    """

    file: str
    offset: int
    dtype: str
    shape: tuple[int, int]
    scale: float = 1.0
    block: int = 0
    scales_offset: int | None = None
    zero_points_offset: int | None = None


@dataclass(frozen=True, slots=True)
class KVLayout:
    """The KV cache: per layer one key and one value tensor of shape [1, kv_heads, max_tokens, head_dim].

    The decoder's inputs are named `past_key_values.{i}.key|value`, its outputs `present.{i}.key|value`; the runtime
    binds each pair to one buffer. Layers that read another's keys and values are not counted. Where layers differ,
    `kv_heads` and `head_dim` are the largest.
    """

    layers: int
    """Layers that have keys and values."""
    kv_heads: int
    """Heads of keys and values."""
    head_dim: int
    """Values per head."""
    dtype: str
    """"float32", "float16", or "int8", whose scales are the graph's own."""
    scales: str | None = None
    """What shares a scale in int8: "tensor" (all keys, or all values, of a layer) or "channel"."""
    sizes: tuple[tuple[int, int], ...] = ()
    """kv_heads and head_dim of each layer, where layers differ."""

    def size(self, layer: int) -> tuple[int, int]:
        """kv_heads and head_dim of a layer."""
        return self.sizes[layer] if self.sizes else (self.kv_heads, self.head_dim)


@dataclass(frozen=True, slots=True)
class StateInfo:
    """What a layer without keys and values carries from position to position, overwritten at each run.

    The decoder's input is `past_state.{name}`, its output `present_state.{name}`; zeros before the first position.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PrefixCache:
    """Keys and values of the tokens that prompts begin with, computed at export by the PyTorch model in float32.

    `file` is a `.npy` of `shape` [layers, 2, kv_heads, tokens, head_dim], keys before values, in the cache's own
    `dtype`: as the decoder graph would have left them, but for its own rounding. A layer that has fewer or smaller
    heads than the largest has zeros behind them.
    """

    file: str
    token_ids: tuple[int, ...]
    dtype: str
    shape: tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class StepInputs:
    """What the decoder graph is told about the cache at each run.

    `kind` is a key of `decoding.step_inputs.KINDS`: "in_place" (GroupQueryAttention's sequence lengths) or
    "static" (write index, masks and position ids of a cache with a fixed length, `DecoderInfo.max_context`).
    """

    kind: str = "in_place"
    masks: dict[str, int] = field(default_factory=dict)
    """The graph's mask inputs, each with its sliding window in tokens, the token itself included; 0 is none. Those of
    "in_place" are for tokens that see later ones, and there only where the attention pattern has such."""


@dataclass(frozen=True, slots=True)
class ImageColumns:
    """A further input of the decoder graph for each position, float32 [1, S, width]: zeros for text, and for an image
    token the columns of its row that follow those before (the embedding's own come first)."""

    name: str
    width: int


@dataclass(frozen=True, slots=True)
class TokenColumns:
    """A further input of the decoder graph for each position, float32 [1, S, width], looked up for each token, those of
    images included, in a table of its own, `table` [vocab, width]."""

    name: str
    table: EmbeddingTable

    @property
    def width(self) -> int:
        """Columns of the table."""
        return self.table.shape[1]


@dataclass(frozen=True, slots=True)
class DecoderInfo:
    """What the runtime needs to know to drive the decoder graph."""

    hidden_size: int
    vocab_size: int
    max_context: int
    """Tokens of prompt, images and answer together that positions and the rotary tables allow."""
    positions: str
    """How position ids are made: a key of `decoding.positions.SCHEMES` ("linear", "mrope")."""
    kv: KVLayout
    embedding: EmbeddingTable
    step_inputs: StepInputs = field(default_factory=StepInputs)
    prefix: PrefixCache | None = None
    image_columns: tuple[ImageColumns, ...] = ()
    """What image tokens bring beside their embeddings: rows of the projector are as wide as all together."""
    attention: str = "causal"
    """Which tokens see later ones: a key of `decoding.attention.PATTERNS` ("causal", "images", "images_in_windows",
    "prefix")."""
    states: tuple[StateInfo, ...] = ()
    """What is carried beside the KV cache; the layers that have keys and values are numbered without those others."""
    token_columns: tuple[TokenColumns, ...] = ()
    """What every token brings beside its embedding."""
    stand_ins: dict[int, int] = field(default_factory=dict)
    """Tokens that are looked up as others, in every table: those that stand for images, where they bring columns."""

    @property
    def row_width(self) -> int:
        """Columns of an image token's row: its embedding, then `image_columns`."""
        return self.hidden_size + sum(columns.width for columns in self.image_columns)

    @property
    def columns(self) -> tuple[ImageColumns | TokenColumns, ...]:
        """Inputs of the decoder graph for each position beside embeddings, in the order of `input_width`."""
        return (*self.image_columns, *self.token_columns)

    @property
    def input_width(self) -> int:
        """All that the decoder graph gets for a position: a row, then `token_columns`."""
        return self.row_width + sum(columns.width for columns in self.token_columns)

    def attention_scores(self, positions: int, cached: int) -> int:
        """Scores of one layer that `positions` of a prompt compute over a KV cache of `cached` tokens."""
        width = min(dim for _, dim in map(self.kv.size, range(self.kv.layers)))
        heads = -(-self.hidden_size // width)  # where they are as wide as the model together, as is usual
        return heads * positions * cached
