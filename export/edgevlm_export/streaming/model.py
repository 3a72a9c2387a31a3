"""A model that transformers' own code runs with its weights streamed: for calibration, measuring, and the reference.

Where weights come from is a parameter (`weights.Weights`): an export reads the checkpoint itself, with the plan's
transforms; the reference has transformers load it, with none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from edgevlm_export.checkpoints import checkpoint, skeleton
from edgevlm_export.families.base import Family
from edgevlm_export.families.decoder import soft_cap
from edgevlm_export.graphs.transforms.edits import Edits
from edgevlm_export.joint_processor import join
from edgevlm_export.planning.plan import ExportPlan, table_names
from edgevlm_export.preprocessing.fewer import config_at_size
from edgevlm_export.streaming import inputs as asking
from edgevlm_export.streaming.choosing import Choosing
from edgevlm_export.streaming.forward import Observe, resident, streamed
from edgevlm_export.streaming.in_step import in_step
from edgevlm_export.streaming.inputs import Array, Ids, ImageFile, Inputs, Message
from edgevlm_export.streaming.samples import Samples
from edgevlm_export.streaming.weights import PlannedWeights, Weights

HEAD_ROWS = 8192
"""Rows of the output embeddings in memory at once."""


@dataclass(frozen=True, eq=False)
class StreamedModel:
    """A skeleton, nothing of it in memory; of the table of token embeddings, rows are, while they are looked up."""

    family: Family
    """Of a skeleton that nothing else uses."""
    weights: Weights
    processor: Any
    """transformers' joint processor."""
    flat_image: str | None = None
    """As in `asking.model_inputs`."""
    edits: Edits = field(default_factory=Edits)
    """What transforms do around the decoder's layers; `weights` has what they do to weights."""
    head: str = ""
    """Name of the head's weight for `weights`; by default the module's own."""

    def __post_init__(self) -> None:
        for table in self.tables:
            table.padding_idx = None  # there will be rows of few tokens alone
            self._forget(table, (), None)
        _ = self.choosing  # its hooks are there from the beginning
        if (leave := self.edits.leave) is not None:
            self.norm.register_forward_pre_hook(lambda _, inputs: (leave(inputs[0]),))

    @classmethod
    def of(cls, plan: ExportPlan) -> StreamedModel:
        """For a planned export: a skeleton of its own (the plan's was changed to be traced)."""
        config = config_at_size(checkpoint.load_config(plan.folder), plan.preprocessing.image.size)
        model, planned = skeleton.build(config), plan.family
        family = type(planned)(model, planned.normalization, planned.image_options, planned.context)
        family.fewer = planned.fewer
        skeleton.fill_buffers(model, lambda name: plan.weights.read(name) if name in plan.weights else None)
        edits, formats = plan.graphs["decoder"].edits, plan.graphs["decoder"].formats
        names = {module: name for name, module in model.named_modules()}
        norm = family.text_model.get_submodule(family.last_norm)
        last = {f"{names[norm]}.{name}" for name, _ in norm.named_parameters()}
        own = f"{names[model.get_output_embeddings()]}.weight"
        return cls(
            family,
            PlannedWeights(plan.weights, edits, model, frozenset(last if edits.leave is not None else ())),
            join(plan.processor, model.config),
            plan.processor.flat_image,
            edits,
            next((name for name in (own, *table_names(planned)) if name in formats), own),
        )

    @property
    def model(self) -> PreTrainedModel:
        """The skeleton."""
        return self.family.model

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The decoder's layers."""
        found: Sequence[nn.Module] = self.family.text_model.layers  # type: ignore[assignment]
        return found

    @property
    def norm(self) -> nn.Module:
        """Behind the last layer."""
        return self.family.text_model.get_submodule(self.family.last_norm)

    @property
    def table(self) -> nn.Embedding:
        """Of token embeddings."""
        found: nn.Embedding = self.model.get_input_embeddings()
        return found

    @property
    def tables(self) -> tuple[nn.Embedding, ...]:
        """All that tokens are looked up in: that of embeddings, then the family's `token_tables`."""
        modules: list[Any] = [self.model.get_submodule(one.module) for one in self.family.token_tables]
        return (self.table, *modules)

    @cached_property
    def names(self) -> dict[nn.Module, str]:
        """Every module's name."""
        return {module: name for name, module in self.model.named_modules()}

    @property
    def head_name(self) -> str:
        """Name of the head's weight [vocab, hidden] for `weights`."""
        return self.head or f"{self.names[self.model.get_output_embeddings()]}.weight"

    @cached_property
    def choosing(self) -> Choosing | None:
        """What leaves out image tokens, where some are left out."""
        return None if self.family.fewer is None else Choosing(self.model, self.family.fewer)

    def inputs(self, question: str | Sequence[Message], images: Sequence[ImageFile]) -> Inputs:
        """Arguments of transformers' model for a conversation, the generation prompt at its end."""
        made = asking.model_inputs(self.processor, question, images, self.flat_image)
        return made if self.choosing is None else self.choosing.inputs(made)

    def encode(self, pixels: Inputs, observe: Observe | None = None) -> tuple[Array, Array]:
        """As `asking.encode_image`, all images in one pass of vision encoder and projector."""
        with self._streaming(observe=observe):
            return asking.encode_image(self.model, pixels)

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids [..., S] to decoder inputs [..., S, width], as the runtime has them: embeddings, zeros in
        `image_columns`, rows of `token_tables`."""
        for token, other in self.family.stand_ins.items():
            tokens = tokens.masked_fill(tokens == token, other)
        with self._looking_up(), torch.no_grad():
            found: Tensor = self.table(tokens.clamp(max=self.table.num_embeddings - 1))
            more = [table(tokens) for table in self.tables[1:]]
        rows = nn.functional.pad(found, (0, sum(columns.width for columns in self.family.image_columns)))
        return torch.cat([rows, *more], dim=-1)

    def decode(self, samples: Samples, observe: Observe | None = None, cache: Cache | None = None) -> Tensor:
        """The head's input [sequences, length, hidden], from embeddings; one module's weights in memory at a time.

        What the family's text model is called with is made here, for all who look at it.
        """
        arguments = self.family.text_arguments(samples.embeddings, samples.named, self.edits.entries)
        with self._streaming(observe=observe):
            output = self.family.text_model(**arguments, past_key_values=cache, use_cache=cache is not None)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def observe_head(self, hidden: Tensor, observe: Observe) -> None:
        """Show `observe` the head with its input, what `decode` gives; the text model does not run it."""
        weight = self.weights.read(self.head_name).float()
        head = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        head.weight = nn.Parameter(weight, requires_grad=False)
        observe(self.head_name, head, hidden)

    def forward(self, inputs: Sequence[Inputs], rows: Sequence[Ids], advance: Callable[[int], None]) -> list[Tensor]:
        """The head's input [R, hidden] at `rows` of each of `inputs`, by the whole of transformers' model, from token
        ids and pixels; one decoder layer in memory at a time, for all of them.

        `advance` is told how many layers are done. Nothing of what a family says of its text model is used.
        """

        def run(one: Inputs, wanted: Ids) -> Tensor:
            with torch.no_grad():  # of this thread
                hidden: Tensor = self.model.model(**one, use_cache=False).last_hidden_state
                return hidden[0, torch.from_numpy(wanted)]

        runs = [partial(run, one, wanted) for one, wanted in zip(inputs, rows, strict=True)]
        with self._streaming(apart=self.layers):
            return in_step(self.layers, runs, self.holding, advance)

    def finish(self, hidden: Tensor) -> Tensor:
        """The head's input, from what the last layer gives, [..., hidden] both."""
        with self.holding(self.norm):
            finished: Tensor = self.norm(hidden)
        return finished

    def logits(self, states: Sequence[Tensor], into: Sequence[Array]) -> None:
        """Fill each of `into` [R, vocab] from head inputs [R, hidden], a part of the vocabulary at a time."""
        head, start = self.model.get_output_embeddings(), 0
        for weight in self.weights.parts(self.head_name, HEAD_ROWS):
            stop = start + len(weight)
            bias = None if head.bias is None else self.weights.rows(f"{self.names[head]}.bias", start, stop)
            for logits, state in zip(into, states, strict=True):
                with torch.no_grad():
                    part = nn.functional.linear(state, weight, bias)
                    logits[:, start:stop] = soft_cap(part, self.family.logit_cap).numpy()
            start = stop

    def holding(self, part: nn.Module) -> AbstractContextManager[None]:
        """Within, the parameters of `part` are in memory."""
        return resident(part, self.names[part], self.weights.read)

    @contextmanager
    def _streaming(self, observe: Observe | None = None, apart: Sequence[nn.Module] = ()) -> Iterator[None]:
        """Within, the model runs; the caller sees to the weights of `apart`."""
        changes = self.edits.inputs
        with self._looking_up(), streamed(self.model, self.weights.read, observe, [*apart, *self.tables], changes):
            yield

    @contextmanager
    def _looking_up(self) -> Iterator[None]:
        """Within, rows of the tokens that are asked for are the table."""
        hooks = [table.register_forward_pre_hook(self._look_up) for table in self.tables]
        hooks += [table.register_forward_hook(self._forget) for table in self.tables]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _look_up(self, table: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Rows become the table, and the tokens their numbers in it."""
        name = f"{self.names[table]}.weight"
        ids, places = inputs[0].unique(return_inverse=True)
        rows = torch.cat([self.weights.rows(name, int(token), int(token) + 1) for token in ids])
        table._parameters["weight"] = nn.Parameter(rows, requires_grad=False)
        return (places,)

    def _forget(self, table: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        """A table of the whole shape with nothing in it, for those who look at it without looking anything up."""
        assert isinstance(table, nn.Embedding)
        nothing = torch.full((1, table.embedding_dim), torch.nan).expand(table.num_embeddings, -1)
        table._parameters["weight"] = nn.Parameter(nothing, requires_grad=False)
