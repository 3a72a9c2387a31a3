"""The PyTorch model in memory, as its users load it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from edgevlm_export.checkpoints import checkpoint, door
from edgevlm_export.checkpoints.generation import read_generation
from edgevlm_export.finite import is_finite
from edgevlm_export.joint_processor import join
from edgevlm_export.preprocessing import load_processor
from edgevlm_export.preprocessing.fewer import at_size
from edgevlm_export.reference.memory import check_memory
from edgevlm_export.streaming import inputs as asking
from edgevlm_export.streaming.choosing import Choosing, as_asked, whole
from edgevlm_export.streaming.inputs import Array, Forced, Ids, ImageFile, Inputs, Message, Read
from edgevlm_runtime.bundle.manifest import GenerationDefaults, ImageProcessing
from edgevlm_runtime.errors import CheckpointError, reason

logger = logging.getLogger(__name__)

MAX_NEW_TOKENS = 256
"""Where neither the caller nor the checkpoint sets a limit; the runtime's default."""


@dataclass(frozen=True, slots=True)
class ReferenceAnswer:
    """What generate() gave."""

    token_ids: tuple[int, ...]
    """Generated tokens, the end-of-sequence token included where there is one."""
    text: str
    prompt_tokens: int


class Reference:
    """One loaded checkpoint. `load` makes it."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        folder: Path,
        defaults: GenerationDefaults,
        flat_image: str | None = None,
        choosing: Choosing | None = None,
    ) -> None:
        """`flat_image`: as in `asking.model_inputs`; `choosing`: what leaves out image tokens of `model`."""
        self.model = model
        self.processor = processor
        self.folder = folder
        self.defaults = defaults
        self._flat_image = flat_image
        self.choosing = choosing

    @classmethod
    def load(
        cls,
        model: str,
        dtype: str = "float32",
        chat_template: str | None = None,
        images: ImageProcessing | None = None,
    ) -> Reference:
        """Load a checkpoint by alias, folder or Hugging Face id; its weights compute in `dtype`.

        `chat_template`: a text that stands in for the checkpoint's own; `images`: a bundle's, whose size and number of
        image tokens are taken over.

        Raises `CheckpointError`, `UnsupportedModel`, and `ReferenceTooLarge` when memory does not suffice.
        """
        folder = checkpoint.locate(model)
        config = checkpoint.load_config(folder)
        parts, _ = at_size(load_processor(folder, config, chat_template), config, images)
        processor = join(parts, config)
        defaults = read_generation(folder, config, parts.tokenizer, parts.turn_end).defaults
        kind: torch.dtype = getattr(torch, dtype)
        check_memory(folder, kind)
        transformers_logging.disable_progress_bar()  # one bar per process is enough, and the command line has its own
        try:
            loaded = door.model(folder, kind, config)
        except Exception as error:  # transformers raises what the parsers under it raise
            logger.debug("loading the PyTorch model failed", exc_info=True)
            raise CheckpointError(f"PyTorch cannot load the model: {folder}: {reason(error)}") from error
        for name, parameter in loaded.named_parameters():
            if not is_finite(parameter):
                raise CheckpointError(f"weight is not a finite number: {folder}: {name}: export another checkpoint")
        return cls(loaded.eval(), processor, folder, defaults, parts.flat_image, as_asked(loaded, images))

    @property
    def name(self) -> str:
        """Class, checkpoint and type, for people."""
        return f"{type(self.model).__name__} {self.folder.name}, {str(self.model.dtype).removeprefix('torch.')}"

    @torch.inference_mode()
    def answer(
        self,
        question: str | Sequence[Message],
        images: Sequence[ImageFile] = (),
        *,
        max_new_tokens: int | None = None,
        **generation: Any,
    ) -> ReferenceAnswer:
        """Answer greedily. `question`: a text, put after the images in one user message, or a whole conversation.

        The checkpoint's generation config holds, but for sampling; an answer ends where a bundle's does
        (`read_generation`). `generation` are further arguments of generate().
        """
        inputs = self.inputs(question, images)
        config = self.model.generation_config
        ends = list(self.defaults.eos_token_ids) or None
        greedy = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None, "eos_token_id": ends}
        limit = max_new_tokens or config.max_new_tokens or MAX_NEW_TOKENS
        tokens = self.model.generate(**inputs, **{**greedy, "max_new_tokens": limit, **generation})
        prompt = inputs["input_ids"].shape[1]
        made = tokens[0, prompt:].tolist()
        return ReferenceAnswer(tuple(made), self.processor.decode(made, skip_special_tokens=True), prompt)

    @torch.inference_mode()
    def prompt_logits(
        self, question: str | Sequence[Message], images: Sequence[ImageFile] = (), continuation: Sequence[int] = ()
    ) -> tuple[Ids, Array]:
        """Token ids [S] of a prompt and of `continuation` after it, and logits [S, vocab] for each of them."""
        inputs = asking.with_continuation(self.inputs(question, images), continuation, self.model.config.model_type)
        logits = asking.numbers(self.model(**inputs).logits[0], "logits")
        return inputs["input_ids"][0].numpy(), logits

    @torch.inference_mode()
    def image_embeddings(self, image: ImageFile) -> Array:
        """All that an image may have in the prompt: [tokens, hidden], in prompt order."""
        return self.encode_image(image)[1]

    @torch.inference_mode()
    def encode_image(self, image: ImageFile) -> tuple[Array, Array]:
        """(vision features [rows, width] as the projector gets them, embeddings [tokens, hidden]), of all tokens."""
        with whole(self.choosing):
            return asking.encode_image(self.model, asking.pixel_inputs(self.processor, image, self._flat_image))

    def read(
        self, prompts: Sequence[Forced], limit: int, progress: Callable[[int, int], None] = lambda *_: None
    ) -> Iterator[Read]:
        """Logits over each prompt and its answer, and the model's own answer of at most `limit` tokens.

        `progress` is told how much is done, and of how much.
        """
        for number, prompt in enumerate(prompts):
            progress(number, len(prompts))
            own = self.answer(prompt.question, prompt.images, max_new_tokens=limit).token_ids
            ids, logits = self.prompt_logits(prompt.question, prompt.images, prompt.answer)
            rows = asking.text_rows(ids, self.model.config.image_token_id)
            yield Read(ids, rows, logits[rows], own, whole=True)
        progress(len(prompts), len(prompts))

    def weight_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows of a parameter as transformers loaded it, in float32."""
        rows: torch.Tensor = self.model.get_parameter(name)[start:stop].detach().float()
        return rows

    def inputs(self, question: str | Sequence[Message], images: Sequence[ImageFile] = ()) -> Inputs:
        """Arguments of the model for a conversation, the generation prompt at its end. Images as in `answer`."""
        inputs = asking.model_inputs(self.processor, question, images, self._flat_image)
        return inputs if self.choosing is None else self.choosing.inputs(inputs)
