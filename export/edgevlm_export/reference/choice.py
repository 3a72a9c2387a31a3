"""Which way the reference runs: whole where memory holds it, else layer by layer."""

from __future__ import annotations

import logging

import torch

from edgevlm_export.checkpoints import checkpoint
from edgevlm_export.reference.memory import ReferenceTooLarge, available, streamed_bytes, whole_bytes
from edgevlm_export.reference.streamed import StreamedReference
from edgevlm_export.reference.whole import Reference
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.bundle.manifest import ImageProcessing
from edgevlm_runtime.errors import BundleIncomplete

logger = logging.getLogger(__name__)

AnyReference = Reference | StreamedReference
"""Both name themselves, encode images and read prompts along with answers; only the first generates."""


def open_reference(
    model: str, beside: int = 0, chat_template: str | None = None, images: ImageProcessing | None = None
) -> AnyReference:
    """The model in float32. `beside`: bytes that something else will take before the reference is asked; a model that
    is loaded whole is there beside it, one that runs layer by layer comes after it. `chat_template`: a text that stands
    in for the checkpoint's own (`given_template`); `images`: a bundle's, whose size and number of image tokens are
    taken over.

    Raises `CheckpointError`, `UnsupportedModel`, and `ReferenceTooLarge` when not even one layer fits.
    """
    folder = checkpoint.locate(model)
    free = available()
    if whole_bytes(folder, torch.float32) + beside <= free:
        return Reference.load(model, chat_template=chat_template, images=images)
    needed = streamed_bytes(folder)
    if needed > free:
        raise ReferenceTooLarge(
            f"PyTorch needs about {needed / 2**30:.1f} GiB for {folder} even layer by layer, "
            f"{free / 2**30:.1f} GiB are available: close other programs, or use a larger machine"
        )
    logger.info("memory does not hold %s in PyTorch: it runs layer by layer", folder)
    return StreamedReference.load(model, chat_template, images)


def given_template(bundle: Bundle) -> str | None:
    """The chat template that a bundle was given at export, which its reference needs as well; None where it has the
    checkpoint's own, as the reference reads it there. Raises `BundleIncomplete`."""
    prompt = bundle.manifest.prompt
    if not prompt.template_given:
        return None
    path = bundle.file(prompt.chat_template)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleIncomplete(f"cannot read the chat template: {path}: export the model again") from error
