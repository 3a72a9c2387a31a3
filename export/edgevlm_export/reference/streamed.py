"""The PyTorch model in bounded memory: transformers' own loading and forward, its weights copied in as they run.

Of the decoder one layer is in memory at a time, for all prompts at once (`in_step`); of everything else one module.
The model generates nothing: it reads along an answer that somebody gave. Where at every position its likeliest next
token is the one that was given, greedy generation would have given the same answer, token for token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor, SuppressTokensLogitsProcessor

from edgevlm_export.checkpoints import checkpoint, skeleton
from edgevlm_export.checkpoints.generation import read_generation
from edgevlm_export.checkpoints.weights.ties import tied_weights, untie
from edgevlm_export.families import get_family
from edgevlm_export.families.base import Normalization
from edgevlm_export.families.decoder import soft_cap
from edgevlm_export.joint_processor import join
from edgevlm_export.preprocessing import load_processor, translate
from edgevlm_export.reference.loaded import LoadedWeights
from edgevlm_export.reference.memory import HEAD_ROWS, give_back_large_blocks
from edgevlm_export.streaming import inputs as asking
from edgevlm_export.streaming.forward import resident, streamed
from edgevlm_export.streaming.in_step import in_step
from edgevlm_export.streaming.inputs import Array, Forced, ImageFile, Inputs, Read
from edgevlm_runtime.bundle.manifest import GenerationDefaults


class StreamedReference:
    """One checkpoint, nothing of it in memory. `load` makes it."""

    def __init__(
        self,
        model: Any,
        text_model: nn.Module,
        weights: LoadedWeights,
        processor: Any,
        defaults: GenerationDefaults,
        flat_image: str | None = None,
        logit_cap: float | None = None,
    ) -> None:
        """`model`: a skeleton, of which `text_model` is a part; `flat_image`: as in `asking.model_inputs`; `logit_cap`:
        as of the family."""
        self._flat_image, self._logit_cap = flat_image, logit_cap
        self.model = model
        self.folder: Path = weights.folder
        self._weights = weights
        self._processor = processor
        self._greedy = _processors(defaults)
        self._ends = frozenset(defaults.eos_token_ids)
        self._layers: Sequence[nn.Module] = text_model.layers  # type: ignore[assignment]
        self._table: nn.Embedding = model.get_input_embeddings()
        self._names = {module: name for name, module in model.named_modules()}
        self._table_name = f"{self._names[self._table]}.weight"
        width = self._table.weight.shape[1]
        self._table.padding_idx = None  # there will be rows of this prompt alone
        self._table.weight = nn.Parameter(torch.empty(0, width), requires_grad=False)

    @classmethod
    def load(cls, model: str, chat_template: str | None = None) -> StreamedReference:
        """Open a checkpoint by alias, folder or Hugging Face id. `chat_template`: as for `Reference.load`.

        Raises `CheckpointError` and `UnsupportedModel`.
        """
        give_back_large_blocks()
        folder = checkpoint.locate(model)
        config = checkpoint.load_config(folder)
        parts = load_processor(folder, config, chat_template)
        built = skeleton.build(config)
        family = get_family(config.model_type)(
            built,
            Normalization.of(parts.image_processor),
            translate(parts, config).image.options,
            int(config.get_text_config().max_position_embeddings),
        )
        weights = LoadedWeights.load(folder, config, type(built))
        for tied in set(tied_weights(built)) - set(weights.ties):
            untie(built, tied)
        defaults = read_generation(folder, config, parts.tokenizer, parts.turn_end).defaults
        return cls(built, family.text_model, weights, join(parts, config), defaults, parts.flat_image, family.logit_cap)

    @property
    def name(self) -> str:
        """Class, checkpoint and type, for people."""
        return f"{type(self.model).__name__} {self.folder.name}, float32, layer by layer"

    @torch.inference_mode()
    def encode_image(self, image: ImageFile) -> tuple[Array, Array]:
        """(vision features [rows, width] as the projector gets them, embeddings [tokens, hidden])."""
        with self._streaming():
            return asking.encode_image(self.model, asking.pixel_inputs(self._processor, image, self._flat_image))

    def read(
        self, prompts: Sequence[Forced], limit: int, progress: Callable[[int, int], None] = lambda *_: None
    ) -> Iterator[Read]:
        """Logits over each prompt and its answer, and the model's own answer as far as reading along tells it.

        `progress` is told how many layers are done, and of how many.
        """
        inputs = [
            asking.with_continuation(
                asking.model_inputs(self._processor, prompt.question, prompt.images, self._flat_image),
                prompt.answer,
                self.model.config.model_type,
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

        def forward(one: Inputs, wanted: asking.Ids) -> Tensor:
            with torch.inference_mode():  # of this thread
                hidden: Tensor = self.model.model(**one, use_cache=False).last_hidden_state
                return hidden[0, torch.from_numpy(wanted)]

        count = len(self._layers)
        runs = [partial(forward, one, wanted) for one, wanted in zip(inputs, rows, strict=True)]
        with self._streaming(), torch.inference_mode():
            states = in_step(self._layers, runs, self._holding, lambda done: progress(done, count))
            for hidden in states:
                asking.numbers(hidden, "hidden states")
            return self._head(states)

    def _head(self, states: Sequence[Tensor]) -> list[Array]:
        """Logits [R, vocab] of hidden states [R, hidden], a part of the vocabulary at a time."""
        head = self.model.get_output_embeddings()
        name = self._names[head]
        vocabulary = head.weight.shape[0]
        made = [np.empty((len(one), vocabulary), np.float32) for one in states]
        for start in range(0, vocabulary, HEAD_ROWS):
            stop = min(start + HEAD_ROWS, vocabulary)
            weight = self._weights.rows(f"{name}.weight", start, stop)
            bias = None if head.bias is None else self._weights.rows(f"{name}.bias", start, stop)
            for logits, state in zip(made, states, strict=True):
                part = nn.functional.linear(state, weight, bias)
                logits[:, start:stop] = soft_cap(part, self._logit_cap).numpy()
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

    @contextmanager
    def _streaming(self) -> Iterator[None]:
        """Weights of everything but the decoder's layers come and go with their module; of the table, rows do."""
        hooks = (
            self._table.register_forward_pre_hook(self._look_up),
            self._table.register_forward_hook(self._forget),
        )
        try:
            with streamed(self.model, self._weights.read, held=[*self._layers, self._table]):
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def _holding(self, layer: nn.Module) -> Any:
        return resident(layer, self._names[layer], self._weights.read)

    def _look_up(self, table: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Rows of the tokens that are asked for become the table, and the tokens their numbers in it."""
        ids, places = inputs[0].unique(return_inverse=True)
        rows = torch.cat([self._weights.rows(self._table_name, int(token), int(token) + 1) for token in ids])
        table._parameters["weight"] = nn.Parameter(rows, requires_grad=False)
        return (places,)

    def _forget(self, table: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        rows = table._parameters["weight"]
        assert rows is not None
        table._parameters["weight"] = nn.Parameter(rows[:0].clone(), requires_grad=False)


def _processors(defaults: GenerationDefaults) -> LogitsProcessorList:
    """transformers' own, for what a generation config says about greedy answers."""
    made = LogitsProcessorList()
    if defaults.repetition_penalty != 1.0:
        made.append(RepetitionPenaltyLogitsProcessor(penalty=defaults.repetition_penalty))
    if defaults.suppress_tokens:
        made.append(SuppressTokensLogitsProcessor(list(defaults.suppress_tokens), device="cpu"))
    return made
