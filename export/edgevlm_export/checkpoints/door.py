"""The one door through which anything of a checkpoint is loaded: transformers' classes, tensors, saved states.

A checkpoint is a stranger's. It may carry Python of its own (`auto_map`, `custom_generate/`), pickles, and names of
things on the hub. Nothing of that is run, unpickled or fetched: every call here says `trust_remote_code=False` (with
None, transformers asks whoever is at standard input), `local_files_only=True` and `weights_only=True`. No other module
of the exporter calls a loader; `tests/export/checkpoints/test_door.py` lists those that do.

Errors are the libraries' own; callers name the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    BaseImageProcessor,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.processing_utils import ProcessorMixin

from edgevlm_export.checkpoints import pillow_backend

LOCAL = {"local_files_only": True}
UNTRUSTED = {"local_files_only": True, "trust_remote_code": False}


def config(folder: Path) -> PreTrainedConfig:
    """`config.json`, as transformers' own class. Raises `ValueError` for one that names a kernel on the hub."""
    made: PreTrainedConfig = AutoConfig.from_pretrained(folder, **UNTRUSTED)
    for kind in ("_attn_implementation", "_experts_implementation"):  # those of a sub-config are overwritten by these
        if "/" in str(getattr(made, kind, None)):  # the `kernels` library would fetch it and run it
            raise ValueError(f"{kind.strip('_')} is code on the hub: {getattr(made, kind)}: take the key out")
    return made


def is_known(model_type: str) -> bool:
    """Whether transformers itself has this architecture; of another, only the checkpoint's own code could make one."""
    return model_type in CONFIG_MAPPING


def generation_config(folder: Path) -> GenerationConfig:
    """As transformers' models load it: `generation_config.json`, else what `config.json` says, as it is written."""
    own = (folder / "generation_config.json").is_file()
    where = {} if own else {"config_file_name": "config.json", "_from_model_config": True}
    return GenerationConfig.from_pretrained(folder, **LOCAL, **where)


def processor_settings(folder: Path) -> dict[str, Any]:
    """Arguments of the joint processor, from `processor_config.json` and the chat template's files."""
    settings: dict[str, Any] = ProcessorMixin.get_processor_dict(folder, **LOCAL)[0]
    return settings


def image_processor(folder: Path) -> Any:
    """transformers' image processor with the PIL backend, the reference for pixel parity; one that there is for
    torchvision alone with Pillow's resize in place of torchvision's."""
    named = BaseImageProcessor.get_image_processor_dict(folder, **LOCAL)[0].get("image_processor_type")
    if (kind := pillow_backend.find(str(named))) is not None:
        return kind.from_pretrained(folder, **UNTRUSTED)
    return AutoImageProcessor.from_pretrained(folder, backend="pil", **UNTRUSTED)


def tokenizer(folder: Path) -> Any:
    """transformers' tokenizer."""
    return AutoTokenizer.from_pretrained(folder, **UNTRUSTED)


def tokenizer_as(kind: str, folder: Path) -> Any:
    """The tokenizer as a class of transformers by its name. Raises `ValueError` where there is no such class."""
    found = getattr(transformers, kind, None)
    if not (isinstance(found, type) and issubclass(found, PreTrainedTokenizerBase)):
        raise ValueError(f"transformers has no tokenizer {kind}")
    named: Any = found
    return named.from_pretrained(folder, **UNTRUSTED)


def processor(folder: Path) -> Any:
    """transformers' joint processor as its users load it."""
    return AutoProcessor.from_pretrained(folder, backend="pil", **UNTRUSTED)


def architecture(config: PreTrainedConfig) -> PreTrainedModel:
    """The model that `config` describes, in float32, its weights as the caller's context makes them."""
    model: PreTrainedModel = AutoModelForImageTextToText.from_config(
        config, dtype=torch.float32, trust_remote_code=False
    )
    return model


def model(folder: Path, dtype: torch.dtype = torch.float32, config: PreTrainedConfig | None = None) -> Any:
    """The PyTorch model with its weights, by transformers' own rule of which files those are. `config`: in place of the
    folder's own."""
    return AutoModelForImageTextToText.from_pretrained(
        folder, config=config, dtype=dtype, weights_only=True, **UNTRUSTED
    )


def mapped_model(
    folder: Path,
    config: PreTrainedConfig,
    architecture: type[PreTrainedModel],
    dtype: torch.dtype,
    float32: frozenset[str] = frozenset(),
) -> PreTrainedModel:
    """Likewise, in the `dtype` that the files have, as views of them; parameters whose names hold one of `float32` are
    copied to that type. `architecture`: the class that `config` is of."""
    kept = {*(architecture._keep_in_fp32_modules_strict or ()), *float32}
    same = {"__module__": architecture.__module__, "_keep_in_fp32_modules_strict": kept}  # one that transformers knows
    exact: Any = type(architecture.__name__, (architecture,), same) if float32 else architecture
    made: PreTrainedModel = exact.from_pretrained(folder, config=config, dtype=dtype, weights_only=True, **UNTRUSTED)
    return made


def check_tensors(file: Path) -> None:
    """Have the safetensors library check a file's header, offsets and size."""
    with safe_open(file, framework="pt"):
        pass


def tensors(file: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a safetensors file."""
    return load_file(file)


def saved_state(file: Path) -> Any:
    """What `torch.save` wrote: tensors and plain values, nothing that needs code."""
    return torch.load(file, map_location="cpu", weights_only=True)


def saved_layout(file: Path) -> Any:
    """Likewise, without reading any tensor: each is a fake one whose storage knows its `_checkpoint_offset`."""
    with FakeTensorMode():
        return torch.load(file, map_location="cpu", weights_only=True)
