"""transformers' own joint processor (image processor, tokenizer, chat template) of a checkpoint, for images only.

`AutoProcessor` of some families insists on a video processor and so on torchvision, Gemma 4's on one for sound too, and
SmolVLM's on num2words, with
which it writes the number of a video's frames. The processor class is taken as it is and given everything but these:
what it does with images and text is transformers' code, untouched.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES, processor_class_from_name

from edgevlm_export.checkpoints import pillow_backend
from edgevlm_export.families import known_family
from edgevlm_export.preprocessing import CheckpointProcessor, load_processor
from edgevlm_export.preprocessing.fixed_tokens import CLASS_TOKENS
from edgevlm_runtime.errors import CheckpointError, UnsupportedModel, reason

OTHERS = {"video_processor", "feature_extractor"}
"""Parts of a joint processor that are for videos and sound."""
NUM2WORDS = "num2words"
"""A name in the module of SmolVLM's processor: the function of that package, or None where it is not installed."""


def load_joint_processor(folder: Path, config: PreTrainedConfig, chat_template: str | None = None) -> Any:
    """The processor of a local checkpoint; its class is the checkpoint's own, else that of the model type.

    `chat_template`: a text that stands in for the checkpoint's own.

    Raises `CheckpointError` when a file cannot be read, `UnsupportedModel` when transformers has no such class.
    """
    return join(load_processor(folder, config, chat_template), config)


def join(parts: CheckpointProcessor, config: PreTrainedConfig) -> Any:
    """The joint processor made of `parts`."""
    base = _processor_class(parts, config)
    _without_num2words(base)
    joint = _without_others(base)
    arguments = _arguments(joint, {**_from_config(config), **parts.settings})
    arguments |= {"image_processor": parts.image_processor, "tokenizer": parts.tokenizer}
    arguments |= dict.fromkeys(OTHERS & set(joint.get_attributes()))
    try:
        return joint(**arguments, chat_template=None if _plain(config) else parts.chat_template)
    except ImportError as error:
        raise UnsupportedModel(f"transformers cannot load the processor of {parts.folder}: {reason(error)}") from error
    except Exception as error:  # processors check their arguments with several exception types
        raise CheckpointError(f"cannot build the processor of {parts.folder}: {reason(error)}") from error


def _processor_class(parts: CheckpointProcessor, config: PreTrainedConfig) -> type[ProcessorMixin]:
    name = parts.settings.get("processor_class") or PROCESSOR_MAPPING_NAMES.get(config.model_type)
    found: type[ProcessorMixin] | None = None
    if name:
        found = pillow_backend.find_joint(name) or processor_class_from_name(name)
    if found is None:
        raise UnsupportedModel(f"transformers has no processor for {name or config.model_type}: {parts.folder}")
    return found


def _plain(config: PreTrainedConfig) -> bool:
    """Whether the processor writes prompts itself; the template that the bundle gets in its place is not its affair."""
    family = known_family(config.model_type)
    return family is not None and family.plain_prompts


def _without_others(base: type[ProcessorMixin]) -> Any:
    """The class itself, but content with None for what is not for images."""

    def check(self: Any, argument_name: str, argument: Any) -> Any:
        if argument_name in OTHERS and argument is None:
            return type(None)
        return base.check_argument_for_proper_class(self, argument_name, argument)

    return type(base.__name__, (base,), {"check_argument_for_proper_class": check})


def _without_num2words(base: type[ProcessorMixin]) -> None:
    """Let the class be made where num2words is not installed: its module gets a function that only videos call.

    The package is under the LGPL and needs one that is built from source, so the exporter does not depend on it.
    """
    module = vars(sys.modules[base.__module__])
    if NUM2WORDS in module and module[NUM2WORDS] is None:
        module[NUM2WORDS] = _number_of_frames


def _number_of_frames(number: int) -> str:
    raise ImportError(f"a video of {number} frames: its number in words takes the package {NUM2WORDS}")


def _arguments(joint: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Those settings that the class's constructor names; sub-processors and the template are given separately."""
    given = {*joint.get_attributes(), "chat_template", "self"}
    named = inspect.signature(joint.__init__).parameters
    return {name: settings[name] for name in named if name in settings and name not in given}


def _from_config(config: PreTrainedConfig) -> dict[str, Any]:
    """What older LLaVA checkpoints leave to the model's config: patch size and how features are selected."""
    if not hasattr(config, "vision_feature_layer"):
        return {}
    strategy = getattr(config, "vision_feature_select_strategy", "default")  # ViP-LLaVA has no other
    return {
        "patch_size": getattr(config.vision_config, "patch_size", None),  # timm's towers have none
        "vision_feature_select_strategy": strategy,
        "num_additional_image_tokens": CLASS_TOKENS.get(config.vision_config.model_type, 0),
    }
