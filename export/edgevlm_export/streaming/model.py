"""The model of a planned export, run by transformers' own code with its weights streamed: what calibration looks at."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel

from edgevlm_export.checkpoints import checkpoint, skeleton
from edgevlm_export.families.base import Family
from edgevlm_export.joint_processor import join
from edgevlm_export.planning.plan import ExportPlan, Progress, table_names
from edgevlm_export.streaming import inputs as asking
from edgevlm_export.streaming import samples
from edgevlm_export.streaming.forward import Changes, Observe, resident, streamed
from edgevlm_export.streaming.material import ImagePrompt, Material, key, manual
from edgevlm_runtime.errors import ExportError, reason

logger = logging.getLogger(__name__)

CANDIDATES = 32
"""Prompts that are looked at, to take those that fit."""


@dataclass(frozen=True)
class StreamedModel:
    """A skeleton of its own (the plan's was changed to be traced), and what the plan does to its weights."""

    plan: ExportPlan
    family: Family

    @classmethod
    def of(cls, plan: ExportPlan) -> StreamedModel:
        """For a planned export."""
        model = skeleton.build(checkpoint.load_config(plan.folder))
        planned = plan.family
        return cls(plan, type(planned)(model, planned.normalization, planned.image_options, planned.context))

    @property
    def model(self) -> PreTrainedModel:
        """The skeleton."""
        return self.family.model

    @property
    def text_model(self) -> nn.Module:
        """The decoder stack without its head."""
        return self.family.text_model

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The decoder's layers."""
        found: Sequence[nn.Module] = self.text_model.layers  # type: ignore[assignment]
        return found

    @cached_property
    def names(self) -> dict[nn.Module, str]:
        """Every module's name."""
        return {module: name for name, module in self.model.named_modules()}

    def load(self, name: str) -> Tensor:
        """A weight as the decoder's transforms change it."""
        return self.plan.graphs["decoder"].edits.read(self.plan.weights, name)

    @property
    def changes(self) -> Changes:
        """What the transforms do to the inputs of single layers."""
        return self.plan.graphs["decoder"].edits.inputs

    def enter(self, embeddings: Tensor) -> Tensor:
        """What the changed layers see of `embeddings`."""
        entry = self.plan.graphs["decoder"].edits.entry
        return embeddings if entry is None else entry(embeddings)

    @cached_property
    def head_name(self) -> str:
        """The head's weight, by the name that the decoder's graph has for it."""
        own = f"{self.names[self.model.get_output_embeddings()]}.weight"
        held = self.plan.graphs["decoder"].held
        return next((name for name in (own, *table_names(self.family)) if name in held), own)

    def head(self) -> Tensor:
        """The head's weight [vocab, hidden], float32, as the graph has it."""
        return self.load(self.head_name).float()

    def finish(self, hidden: Tensor) -> Tensor:
        """The head's input, from what the last layer gives, [..., hidden] both."""
        leave, norm = self.plan.graphs["decoder"].edits.leave, self.text_model.norm
        assert isinstance(norm, nn.Module)
        if leave is None:
            load = self.load
        else:
            hidden, load = leave(hidden), self.plan.weights.read
        with resident(norm, self.names[norm], load):
            finished: Tensor = norm(hidden)
        return finished

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids [..., S] to embeddings [..., S, hidden], as the runtime hands them to the graph."""
        stored = self.plan.weights.tensors[self.plan.family.embedding_name]
        known, places = tokens.clamp(max=stored.shape[0] - 1).unique(return_inverse=True)
        rows = torch.cat([stored.rows(int(token), int(token) + 1).float() for token in known])
        return rows[places] * self.plan.family.embedding_scale

    def sample(self, material: Material, rows: int, progress: Progress, held_back: bool = False) -> samples.Samples:
        """About `rows` positions of prompts with images and of text. `held_back`: none of those that are taken without.

        Raises `ExportError` for a text that is too short, or an image that does not fit the model.
        """
        layout = self.layout(material, rows, held_back)
        taken = layout.prompts
        logger.info("samples: %d prompts with images, sequences of %d tokens", len(taken), layout.length)
        ids = self._text_ids(material, layout.text_length, held_back)
        tokens = samples.spread(ids, layout.texts, layout.text_length)
        seen: dict[object, Tensor] = {}

        def images(prompt: samples.Prompt) -> Tensor:
            for image in prompt.images:
                if key(image) not in seen:
                    seen[key(image)] = self.encode([image])
                    progress("encoding images", len(seen), max(len(taken), len(seen)))
            return torch.cat([seen[key(image)] for image in prompt.images])

        return samples.assemble(taken, tokens, self.embed, images, self.image_token_id)

    def layout(self, material: Material, rows: int, held_back: bool = False) -> samples.Layout:
        """What `sample` takes, known before any weight is read. Raises `ExportError` for an image it cannot use."""
        asked = islice(material.questions(held_back), CANDIDATES)
        return samples.fitting((self._tokenized(prompt) for prompt in asked), rows, self.family.context)

    @property
    def image_token_id(self) -> int:
        """What stands in a prompt's ids where an image's embeddings go."""
        return self.plan.preprocessing.prompt.image_token_id

    def encode(self, images: Sequence[asking.ImageFile], observe: Observe | None = None) -> Tensor:
        """Embeddings [tokens, hidden] of images, all in one pass of vision encoder and projector."""
        pixels = {name: value for name, value in self._inputs("?", images).items() if name not in asking.OF_TEXT}
        with streamed(self.model, self._unchanged, observe):
            return torch.from_numpy(asking.encode_image(self.model, pixels)[1])

    def _text_ids(self, material: Material, length: int, held_back: bool) -> list[int]:
        """Token ids of the part of a text that is wanted, then of what ships where that is shorter than `length`."""
        files, prompt_format = self.plan.preprocessing.files, self.plan.preprocessing.prompt
        tokenizer = Tokenizer.from_str(files[prompt_format.tokenizer])

        def wanted(text: str) -> list[int]:
            return list(samples.part(tokenizer.encode(text, add_special_tokens=False).ids, held_back))

        ids = wanted(material.words())
        if len(ids) < length and material.text is not None:
            purpose = "measure" if held_back else "calibrate"
            logger.info("%d tokens of text to %s with are too few: English that ships follows them", len(ids), purpose)
            ids += wanted(manual())
        return ids

    def _tokenized(self, prompt: ImagePrompt) -> samples.Prompt:
        """The question and its answer."""
        ids: Tensor = self._inputs(prompt.question, prompt.images)["input_ids"][0]
        if prompt.answer:
            answer = self._processor.tokenizer(prompt.answer, add_special_tokens=False).input_ids
            ids = torch.cat([ids, torch.tensor(answer, dtype=ids.dtype)])
        return samples.Prompt(ids, prompt.images)

    def _inputs(self, question: str, images: Sequence[asking.ImageFile]) -> asking.Inputs:
        try:
            return asking.model_inputs(self._processor, question, images, self.plan.processor.flat_image)
        except Exception as error:  # processors and Pillow raise many types for an image they cannot use
            raise ExportError(f"calibration image not usable: {reason(error)}: remove or replace it") from error

    @cached_property
    def _processor(self) -> Any:
        return join(self.plan.processor, self.model.config)

    def _unchanged(self, name: str) -> Tensor:
        """A weight as it is stored; zeros for one that no graph reads and the checkpoint lacks."""
        weights = self.plan.weights
        return weights.read(name) if name in weights else torch.zeros(self.model.get_parameter(name).shape)
