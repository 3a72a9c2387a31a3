"""Sequences that the decoder reads while it is calibrated or measured: prompts with images, and text.

All sequences have one length, that of the longest prompt; shorter ones are padded at their end, where a causal
decoder cannot see it. How much is read follows from the widest activation, so that memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedConfig

from edgevlm_runtime.errors import ExportError

T = TypeVar("T")

SEQUENCES = 64
LENGTH = 256
"""Tokens of a sequence where no prompt is longer, fewer where the context is shorter."""
ACTIVATION_BYTES = 256 * 2**20
"""Of one activation of the widest layer, over all sequences."""
MEASURED = 1024
"""Positions that a loss is measured on."""
LONGEST = 4096
"""Longer prompts are left out."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One tokenized prompt."""

    ids: Tensor
    """int64 [length]."""
    images: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Samples:
    """Sequences of embeddings in the model's own space (no transform applied)."""

    embeddings: Tensor
    """float32 [sequences, length, width]: with the family's `columns` behind them, as the runtime has them."""
    real: Tensor
    """bool [sequences, length]: false for padding."""
    text: Tensor
    """bool [sequences, length]: positions that hold text, whose next token is of interest."""
    named: Mapping[str, Tensor] = field(default_factory=dict)
    """Further arguments of the text model for these positions (`Family.text_arguments`)."""

    @property
    def rows(self) -> int:
        """Positions that are not padding."""
        return int(self.real.sum())


@dataclass(frozen=True, slots=True)
class Layout:
    """What samples are made of."""

    prompts: tuple[Prompt, ...]
    length: int
    """Tokens of every sequence, padding included."""
    texts: int
    """Sequences of text at most, fewer where the text is short."""
    text_length: int
    """Their tokens that are not padding."""

    @property
    def positions(self) -> int:
        """Of all sequences, padding included."""
        return (len(self.prompts) + self.texts) * self.length

    def text_positions(self, image_token_id: int) -> int:
        """Those whose next token is of interest."""
        asked = sum(int((prompt.ids != image_token_id).sum()) for prompt in self.prompts)
        return asked + self.texts * self.text_length


def rows_at_most(config: PreTrainedConfig) -> int:
    """Positions that fit into the memory that calibration may take, for a text config."""
    widest = max(int(config.intermediate_size), int(config.hidden_size))
    return min(SEQUENCES * LENGTH, max(ACTIVATION_BYTES // (4 * widest), LENGTH))


def part(items: Sequence[T], held_back: bool) -> Sequence[T]:
    """The first four fifths, to calibrate with; `held_back`: the last fifth, to measure with, which one item lacks."""
    cut = max(len(items) * 4 // 5, 1)
    return items[cut:] if held_back else items[:cut]


def spread(ids: Sequence[int], sequences: int, length: int) -> Tensor:
    """Token ids [sequences, length], spread evenly over a text's; fewer of them where the text is shorter.

    Raises `ExportError` for a text that is too short for one.
    """
    count = min(sequences, len(ids) // length)
    if count < 1:
        raise ExportError(f"calibration text too short: {len(ids)} tokens: at least {length} are needed")
    stride = len(ids) // count
    return torch.tensor([ids[n * stride : n * stride + length] for n in range(count)])


def fitting(prompts: Iterable[Prompt], rows: int, context: int) -> Layout:
    """The first prompts that fit into half of `rows` positions, and text for the rest of them.

    Where every prompt is longer than that half, the shortest is taken, and one text of the usual length.
    """
    usual = length = min(LENGTH, context)
    taken: list[Prompt] = []
    long: list[Prompt] = []
    for prompt in prompts:
        if len(prompt.ids) > min(context, LONGEST):
            continue
        longer = max(length, len(prompt.ids))
        if len(prompt.ids) > rows // 2:
            long.append(prompt)
        elif taken and (len(taken) + 1) * longer > rows // 2:
            break
        else:
            taken.append(prompt)
            length = longer
    if not taken and long:
        taken = [min(long, key=lambda prompt: len(prompt.ids))]
        length = max(length, len(taken[0].ids))
    left = rows - sum(len(prompt.ids) for prompt in taken)
    text = min(length, max(left, usual))
    return Layout(tuple(taken), length, max(left // text, 1), text)


def of_text(tokens: Tensor, embed: Callable[[Tensor], Tensor]) -> Samples:
    """Samples of token ids [sequences, length], none of them an image's."""
    everywhere = torch.ones_like(tokens, dtype=torch.bool)
    return Samples(embed(tokens), everywhere, everywhere)


def assemble(
    prompts: Sequence[Prompt],
    tokens: Tensor,
    embed: Callable[[Tensor], Tensor],
    images: Callable[[Prompt], Tensor],
    image_token_id: int,
) -> Samples:
    """Samples from `prompts`, then texts `tokens` [sequences, S], all padded to the longest of them.

    `embed`: token ids to embeddings; `images`: the embeddings of all images of a prompt [tokens, row width].
    Raises `ExportError` when they are not as many as the prompt has places.
    """
    length = max([tokens.shape[1], *(len(prompt.ids) for prompt in prompts)])

    def padded(embeddings: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        short = length - len(text)
        real = pad(torch.ones(len(text), dtype=torch.bool), (0, short))
        return pad(embeddings, (0, 0, 0, short)), real, pad(text, (0, short))

    seen = []
    for prompt in prompts:
        place = prompt.ids == image_token_id
        embeddings = embed(prompt.ids)
        found = images(prompt)
        if len(found) != int(place.sum()):
            raise ExportError(f"an image gave {len(found)} embeddings for {int(place.sum())} places in its prompt")
        embeddings[place, : found.shape[1]] = found
        seen.append(padded(embeddings, ~place))
    seen += [padded(embed(ids), ids != image_token_id) for ids in tokens]
    embeddings, real, text = (torch.stack(column) for column in zip(*seen, strict=True))
    return Samples(embeddings, real, text)
