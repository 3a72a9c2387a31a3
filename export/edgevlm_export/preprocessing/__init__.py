"""A checkpoint's processor, translated into what the runtime needs to know.

    processor = load_processor(folder, config)            # image processor (PIL backend), tokenizer, chat template
    preprocessing = translate(processor, config)          # `config` is the model's
    preprocessing.image          # manifest.ImageProcessing
    preprocessing.prompt         # manifest.PromptFormat
    preprocessing.files          # {"tokenizer.json": text, "chat_template.jinja": text}, to be written into the bundle
    processor.image_processor    # rescale and normalisation, which the vision graph takes over, are read off this

Image processor and tokenizer are loaded on their own, because the processors that join them insist on a video processor
and so on torchvision. What they add, the image token and how many of them stand for an image, is in `images`.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedConfig

from edgevlm_export.preprocessing.images import image_processing
from edgevlm_export.preprocessing.loading import CheckpointProcessor, load_processor
from edgevlm_export.preprocessing.prompt import prompt_files, prompt_format
from edgevlm_runtime.bundle.manifest import ImageProcessing, PromptFormat

__all__ = ["CheckpointProcessor", "Preprocessing", "load_processor", "translate"]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Everything between a user's images and words and the graphs' inputs."""

    image: ImageProcessing
    prompt: PromptFormat
    files: dict[str, str]
    """Files of the bundle that `prompt` names, with their text."""


def translate(processor: CheckpointProcessor, config: PreTrainedConfig) -> Preprocessing:
    """What the manifest says about images and prompts.

    Raises `UnsupportedModel` for an image processor, or a setting of it, that the runtime does not have, and
    `CheckpointError` when processor, tokenizer, template and model do not belong together.
    """
    image = image_processing(processor, config)
    files = prompt_files(processor)
    return Preprocessing(image, prompt_format(processor, config, image, files), files)
