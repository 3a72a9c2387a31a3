"""Takes samples for a planned export: prompts with images and text, as the decoder reads them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import torch
from tokenizers import Tokenizer
from torch import Tensor

from edgevlm_export.planning.plan import ExportPlan, Progress
from edgevlm_export.streaming import inputs as asking
from edgevlm_export.streaming import samples
from edgevlm_export.streaming.forward import Observe
from edgevlm_export.streaming.material import ImagePrompt, Material, key, manual
from edgevlm_export.streaming.model import StreamedModel
from edgevlm_runtime.errors import ExportError, reason

logger = logging.getLogger(__name__)

CANDIDATES = 32
"""Prompts that are looked at, to take those that fit."""


@dataclass(frozen=True, eq=False)
class Sampler:
    """Of one planned export and its material."""

    plan: ExportPlan
    material: Material
    progress: Progress = lambda *_: None

    @cached_property
    def model(self) -> StreamedModel:
        """Encodes the images and embeds the tokens; decodes what is taken."""
        return StreamedModel.of(self.plan)

    def take(self, rows: int, held_back: bool = False) -> samples.Samples:
        """About `rows` positions of prompts with images and of text. `held_back`: none of those that are taken without.

        Raises `ExportError` for a text that is too short, an image that does not fit the model, and a model whose image
        tokens see later ones: the text model would have to be told which.
        """
        if self.plan.family.attention != "causal":
            raise ExportError("tokens that see later ones cannot be calibrated: take --fp32 or --fp16, without --kv")
        layout = self.layout(rows, held_back)
        taken = layout.prompts
        logger.info("samples: %d prompts with images, sequences of %d tokens", len(taken), layout.length)
        ids = self.text_ids(layout.text_length, held_back)
        tokens = samples.spread(ids, layout.texts, layout.text_length)
        seen: dict[object, Tensor] = {}

        def images(prompt: samples.Prompt) -> Tensor:
            for image in prompt.images:
                if key(image) not in seen:
                    seen[key(image)] = self.encode([image])
                    self.progress("encoding images", len(seen), max(len(taken), len(seen)))
            return torch.cat([seen[key(image)] for image in prompt.images])

        return samples.assemble(taken, tokens, self.model.embed, images, self.image_token_id)

    def layout(self, rows: int, held_back: bool = False) -> samples.Layout:
        """What `take` takes, known before any weight is read. Raises `ExportError` for an image it cannot use."""
        asked = islice(self.material.questions(held_back), CANDIDATES)
        return samples.fitting((self._tokenized(prompt) for prompt in asked), rows, self.plan.family.context)

    @property
    def image_token_id(self) -> int:
        """What stands in a prompt's ids where an image's embeddings go."""
        return self.plan.preprocessing.prompt.image_token_id

    def encode(self, images: Sequence[asking.ImageFile], observe: Observe | None = None) -> Tensor:
        """Embeddings [tokens, hidden] of images, all in one pass of vision encoder and projector."""
        pixels = asking.without_text(self._inputs("?", images))
        return torch.from_numpy(self.model.encode(pixels, observe)[1])

    def text_ids(self, length: int, held_back: bool) -> list[int]:
        """Token ids of the part of a text that is wanted, then of what ships where that is shorter than `length`."""
        files, prompt_format = self.plan.preprocessing.files, self.plan.preprocessing.prompt
        tokenizer = Tokenizer.from_str(files[prompt_format.tokenizer])

        def wanted(text: str) -> list[int]:
            return list(samples.part(tokenizer.encode(text, add_special_tokens=False).ids, held_back))

        ids = wanted(self.material.words())
        if len(ids) < length and self.material.text is not None:
            purpose = "measure" if held_back else "calibrate"
            logger.info("%d tokens of text to %s with are too few: English that ships follows them", len(ids), purpose)
            ids += wanted(manual())
        return ids

    def _tokenized(self, prompt: ImagePrompt) -> samples.Prompt:
        """The question and its answer."""
        ids: Tensor = self._inputs(prompt.question, prompt.images)["input_ids"][0]
        if prompt.answer:
            answer = self.model.processor.tokenizer(prompt.answer, add_special_tokens=False).input_ids
            ids = torch.cat([ids, torch.tensor(answer, dtype=ids.dtype)])
        return samples.Prompt(ids, prompt.images)

    def _inputs(self, question: str, images: Sequence[asking.ImageFile]) -> asking.Inputs:
        try:
            return self.model.inputs(question, images)
        except Exception as error:  # processors and Pillow raise many types for an image they cannot use
            raise ExportError(f"calibration image not usable: {reason(error)}: remove or replace it") from error
