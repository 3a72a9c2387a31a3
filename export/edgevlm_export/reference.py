"""The PyTorch model that a bundle was made from, behind the same questions that a bundle answers.

    reference = Reference.load("inspector")                      # alias, folder or Hugging Face id, as for `export`
    reference.answer("Is there a scratch?", ["part.png"])        # greedy, transformers' own generate()
    reference.prompt_logits(messages, ["part.png"])              # token ids [S], logits [S, vocab]
    reference.image_embeddings("part.png")                       # [tokens, hidden], in prompt order

Everything is transformers' own: model, generate, image processor (PIL backend), tokenizer, chat template. Nothing of
the runtime's preprocessing is used, so that an error of ours cannot hide on both sides of a comparison.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForImageTextToText, ProcessorMixin
from transformers.utils import logging as transformers_logging

from edgevlm_export import checkpoint
from edgevlm_export.errors import reason
from edgevlm_export.families import get_family
from edgevlm_export.joint_processor import load_joint_processor
from edgevlm_runtime.errors import CheckpointError, ExportError

logger = logging.getLogger(__name__)

ImageFile = str | os.PathLike[str] | Image.Image
Message = Mapping[str, Any]
Array = NDArray[np.float32]

MAX_NEW_TOKENS = 256
"""Where neither the caller nor the checkpoint sets a limit; the runtime's default."""
HEADROOM = 1.3
"""Memory the model needs while it runs, over its weights."""
_OF_TEXT = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")


class ReferenceTooLarge(ExportError):
    """PyTorch cannot hold the model in this machine's memory."""


@dataclass(frozen=True, slots=True)
class ReferenceAnswer:
    """What generate() gave."""

    token_ids: tuple[int, ...]
    """Generated tokens, the end-of-sequence token included where there is one."""
    text: str
    prompt_tokens: int


class Reference:
    """One loaded checkpoint. `load` makes it."""

    def __init__(self, model: Any, processor: Any, folder: Path) -> None:
        self.model = model
        self.processor = processor
        self.folder = folder

    @classmethod
    def load(cls, model: str, dtype: str = "float32") -> Reference:
        """Load a checkpoint by alias, folder or Hugging Face id; its weights compute in `dtype`.

        Raises `CheckpointError`, `UnsupportedModel`, and `ReferenceTooLarge` when memory does not suffice.
        """
        folder = checkpoint.locate(model)
        config = checkpoint.load_config(folder)
        processor = load_joint_processor(folder, config)
        kind: torch.dtype = getattr(torch, dtype)
        _check_memory(folder, kind)
        transformers_logging.disable_progress_bar()  # one bar a process is enough, and the command line has its own
        try:
            loaded = AutoModelForImageTextToText.from_pretrained(folder, dtype=kind, local_files_only=True)
        except Exception as error:  # transformers raises what the parsers under it raise
            logger.debug("loading the PyTorch model failed", exc_info=True)
            raise CheckpointError(f"PyTorch cannot load the model: {folder}: {reason(error)}") from error
        return cls(loaded.eval(), processor, folder)

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

        The checkpoint's generation config holds, but for sampling; `generation` are further arguments of generate().
        """
        inputs = self.inputs(question, images)
        config = self.model.generation_config
        greedy = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
        limit = max_new_tokens or config.max_new_tokens or MAX_NEW_TOKENS
        tokens = self.model.generate(**inputs, **{**greedy, "max_new_tokens": limit, **generation})
        prompt = inputs["input_ids"].shape[1]
        made = tokens[0, prompt:].tolist()
        return ReferenceAnswer(tuple(made), self.processor.decode(made, skip_special_tokens=True), prompt)

    @torch.inference_mode()
    def prompt_logits(
        self, question: str | Sequence[Message], images: Sequence[ImageFile] = (), continuation: Sequence[int] = ()
    ) -> tuple[NDArray[np.int64], Array]:
        """Token ids [S] of a prompt and of `continuation` after it, and logits [S, vocab] for each of them."""
        inputs = self.inputs(question, images)
        more = torch.tensor([list(continuation)], dtype=inputs["input_ids"].dtype)
        for name in _OF_TEXT:
            if name in inputs:
                fill = more if name == "input_ids" else torch.full_like(more, int(name == "attention_mask"))
                inputs[name] = torch.cat([inputs[name], fill], dim=1)
        logits = self.model(**inputs).logits[0].float().numpy()
        return inputs["input_ids"][0].numpy(), logits

    @torch.inference_mode()
    def image_embeddings(self, image: ImageFile) -> Array:
        """What stands for an image in the prompt: [tokens, hidden], in prompt order."""
        return self.encode_image(image)[1]

    @torch.inference_mode()
    def encode_image(self, image: ImageFile) -> tuple[Array, Array]:
        """(vision features [rows, width] as the projector gets them, embeddings [tokens, hidden])."""
        given: list[torch.Tensor] = []
        projector = self.model.get_submodule(get_family(self.model.config.model_type).projector_module)
        hook = projector.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        pixels = {name: value for name, value in self.inputs("What is this?", [image]).items() if name not in _OF_TEXT}
        try:
            pooled = self.model.get_image_features(**pixels, return_dict=True).pooler_output
        finally:
            hook.remove()
        width = self.model.get_input_embeddings().weight.shape[1]
        embeddings = torch.cat([rows.reshape(-1, width) for rows in pooled])
        features = given[0].reshape(-1, given[0].shape[-1])
        return features.float().numpy(), embeddings.float().numpy()

    def inputs(self, question: str | Sequence[Message], images: Sequence[ImageFile] = ()) -> dict[str, torch.Tensor]:
        """Arguments of the model for a conversation, the generation prompt at its end. Images as in `answer`."""
        opened = [image if isinstance(image, Image.Image) else Image.open(image) for image in images]
        messages = _conversation(question, len(opened))
        text = ProcessorMixin.apply_chat_template(
            self.processor, _plain(messages), add_generation_prompt=True, tokenize=False
        )
        bos = self.processor.tokenizer.bos_token
        special = {"add_special_tokens": False} if bos is not None and text.startswith(bos) else {}
        return dict(self.processor(text=text, images=opened or None, return_tensors="pt", **special))


def weight_bytes(folder: Path, dtype: torch.dtype = torch.float32) -> int:
    """Bytes the checkpoint's tensors take in `dtype`, from the shards' headers. Raises `CheckpointError`."""
    elements = 0
    for shard in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(shard, framework="pt") as tensors:
                shapes = (tensors.get_slice(name).get_shape() for name in tensors.keys())  # noqa: SIM118 (no dict)
                elements += sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"damaged weight shard: {shard}: {error}: download the checkpoint again") from error
    return elements * dtype.itemsize


def _check_memory(folder: Path, dtype: torch.dtype) -> None:
    needed, free = int(weight_bytes(folder, dtype) * HEADROOM), psutil.virtual_memory().available
    if needed > free:
        raise ReferenceTooLarge(
            f"PyTorch needs about {needed / 2**30:.1f} GiB for {folder}, {free / 2**30:.1f} GiB are available: "
            "close other programs, or use a larger machine for the reference"
        )


def _conversation(question: str | Sequence[Message], images: int) -> Sequence[Message]:
    if not isinstance(question, str):
        return question
    parts = [*({"type": "image"} for _ in range(images)), {"type": "text", "text": question}]
    return [{"role": "user", "content": parts}]


def _plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """A copy that the processor may change."""
    return [
        {"role": message["role"], "content": content if isinstance(content, str) else [dict(part) for part in content]}
        for message in messages
        for content in [message["content"]]
    ]
