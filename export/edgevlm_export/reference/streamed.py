"""The PyTorch model in bounded memory: transformers' own loading and forward, its weights copied in as they run.

Of the decoder one layer is in memory at a time, for all prompts at once (`in_step`); of everything else one module.
The model generates nothing: it reads along an answer that somebody gave. Where at every position its likeliest next
token is the one that was given, greedy generation would have given the same answer, token for token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor, SuppressTokensLogitsProcessor

from edgevlm_export.checkpoints import checkpoint, skeleton
from edgevlm_export.checkpoints.generation import read_generation
from edgevlm_export.checkpoints.weights.ties import tied_weights, untie
from edgevlm_export.families import get_family
from edgevlm_export.families.normalization import Normalization
from edgevlm_export.joint_processor import join
from edgevlm_export.preprocessing import load_processor, translate
from edgevlm_export.preprocessing.fewer import at_size
from edgevlm_export.reference.loaded import LoadedWeights
from edgevlm_export.reference.memory import give_back_large_blocks
from edgevlm_export.streaming import inputs as asking
from edgevlm_export.streaming.choosing import Choosing, interpolate, whole
from edgevlm_export.streaming.inputs import Array, Forced, ImageFile, Inputs, Read
from edgevlm_export.streaming.model import StreamedModel
from edgevlm_runtime.bundle.manifest import GenerationDefaults, ImageProcessing


class StreamedReference:
    """One checkpoint, nothing of it in memory. `load` makes it."""

    def __init__(self, streamed: StreamedModel, weights: LoadedWeights, defaults: GenerationDefaults) -> None:
        """`streamed` reads `weights`."""
        self.streamed = streamed
        self.model: Any = streamed.model
        self.folder: Path = weights.folder
        self._weights = weights
        self._greedy = _processors(defaults)
        self._ends = frozenset(defaults.eos_token_ids)

    @classmethod
    def load(
        cls, model: str, chat_template: str | None = None, images: ImageProcessing | None = None
    ) -> StreamedReference:
        """Open a checkpoint by alias, folder or Hugging Face id. The others as for `Reference.load`.

        Raises `CheckpointError` and `UnsupportedModel`.
        """
        give_back_large_blocks()
        folder = checkpoint.locate(model)
        config = checkpoint.load_config(folder)
        parts, sized = at_size(load_processor(folder, config, chat_template), config, images)
        built = skeleton.build(config)
        family = get_family(config.model_type)(
            built,
            Normalization.of(parts.image_processor),
            translate(parts, sized).image.options,
            int(config.get_text_config().max_position_embeddings),
        )
        family.fewer = None if images is None else images.fewer
        if images is not None and images.size is not None:
            interpolate(built)
        weights = LoadedWeights.load(folder, config, type(built))
        for tied in set(tied_weights(built)) - set(weights.ties):
            untie(built, tied)
        skeleton.fill_buffers(built, weights.buffer)
        defaults = read_generation(folder, config, parts.tokenizer, parts.turn_end).defaults
        return cls(StreamedModel(family, weights, join(parts, config), parts.flat_image), weights, defaults)

    @property
    def name(self) -> str:
        """Class, checkpoint and type, for people."""
        return f"{type(self.model).__name__} {self.folder.name}, float32, layer by layer"

    @property
    def choosing(self) -> Choosing | None:
        """What leaves out image tokens, where some are left out."""
        return self.streamed.choosing

    def encode_image(self, image: ImageFile) -> tuple[Array, Array]:
        """(vision features [rows, width] as the projector gets them, embeddings [tokens, hidden]), of all tokens."""
        with whole(self.choosing):
            return self.streamed.encode(asking.pixel_inputs(self.streamed.processor, image, self.streamed.flat_image))

    def read(
        self, prompts: Sequence[Forced], limit: int, progress: Callable[[int, int], None] = lambda *_: None
    ) -> Iterator[Read]:
        """Logits over each prompt and its answer, and the model's own answer as far as reading along tells it.

        `progress` is told how many layers are done, and of how many.
        """
        inputs = [
            asking.with_continuation(
                self.streamed.inputs(prompt.question, prompt.images), prompt.answer, self.model.config.model_type
            )
            for prompt in prompts
        ]
        ids = [one["input_ids"][0].numpy() for one in inputs]
        rows = [asking.text_rows(one, self.model.config.image_token_id) for one in ids]
        logits = self._logits(inputs, rows, progress)
        for index, prompt in enumerate(prompts):
            own, whole = self._own(prompt, ids[index], rows[index], logits[index], limit)
            yield Read(ids[index], rows[index], logits[index], own, whole)

    def weight_rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows of a parameter as transformers loaded it, in float32."""
        return self._weights.rows(name, start, stop)

    def _logits(
        self, inputs: Sequence[Inputs], rows: Sequence[asking.Ids], progress: Callable[[int, int], None]
    ) -> list[Array]:
        """[R, vocab] of each prompt's `rows`."""
        count = len(self.streamed.layers)
        states = self.streamed.forward(inputs, rows, lambda done: progress(done, count))
        for hidden in states:
            asking.numbers(hidden, "hidden states")
        vocabulary = self.model.get_output_embeddings().weight.shape[0]
        made = [np.empty((len(hidden), vocabulary), np.float32) for hidden in states]
        self.streamed.logits(states, made)
        return made

    def _own(
        self, prompt: Forced, ids: asking.Ids, rows: asking.Ids, logits: Array, limit: int
    ) -> tuple[tuple[int, ...], bool]:
        """The greedy answer up to the first token that is not the given one; and whether that is all of it."""
        given = len(prompt.answer)
        begin = len(ids) - given
        places = range(begin - 1, begin - 1 + min(given + 1, limit))
        index = {int(row): place for place, row in enumerate(rows)}
        own: list[int] = []
        for number, place in enumerate(places):
            scores = torch.from_numpy(logits[index[place]])[None]
            own.append(int(self._greedy(torch.from_numpy(ids[None, : place + 1]), scores).argmax()))
            if own[-1] in self._ends:
                return tuple(own), True
            if number < given and own[-1] != prompt.answer[number]:
                return tuple(own), False
        return tuple(own), len(own) == limit


def _processors(defaults: GenerationDefaults) -> LogitsProcessorList:
    """transformers' own, for what a generation config says about greedy answers."""
    made = LogitsProcessorList()
    if defaults.repetition_penalty != 1.0:
        made.append(RepetitionPenaltyLogitsProcessor(penalty=defaults.repetition_penalty))
    if defaults.suppress_tokens:
        made.append(SuppressTokensLogitsProcessor(list(defaults.suppress_tokens), device="cpu"))
    return made
