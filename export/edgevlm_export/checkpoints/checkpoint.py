"""A Hugging Face checkpoint on disk: where it is, its config, and its weights, one tensor at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from edgevlm_export.checkpoints import door, hub, json_files, recognise, skeleton
from edgevlm_export.checkpoints.aliases import ALIASES, checkpoint_path
from edgevlm_export.checkpoints.weights import conversion, quantized, shards, ties, torch_files
from edgevlm_export.checkpoints.weights.files import weight_files
from edgevlm_export.checkpoints.weights.interpolated import Views
from edgevlm_export.checkpoints.weights.shards import FLOATS, StoredTensor, Weight
from edgevlm_runtime.errors import CheckpointError, UnsupportedModel, reason
from edgevlm_runtime.registry import added


def locate(model: str) -> Path:
    """The folder of a checkpoint: a local folder, or one of the hub's cache; an alias; a Hugging Face id.

    Raises `CheckpointError` when it is none of these or cannot be downloaded.
    """
    folder = Path(model).expanduser()
    try:
        exists, is_folder = folder.exists(), folder.is_dir()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"not a model's name: {reason(error)}") from error
    if is_folder:
        return hub.snapshot(folder)
    if exists:
        recognise.refuse_file(folder)
    alias = ALIASES.get(model)
    if alias is not None and alias.repo_id is None:
        return checkpoint_path()
    repo_id = model if alias is None else alias.repo_id
    if repo_id is None or repo_id.count("/") != 1 or repo_id.startswith((".", "/", "~")):
        raise CheckpointError(f"no such model: {model}: pass a folder, a Hugging Face id or one of `edgevlm models`")
    return hub.download(repo_id)


def load_config(folder: Path) -> PreTrainedConfig:
    """The checkpoint's config, without a `quantization_config` that its weights do not bear out.

    Raises `CheckpointError`, and `UnsupportedModel` also for a folder that is something else (`recognise`).
    """
    recognise.check(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"not a model folder: {folder}: config.json is missing")
    json_files.check(folder)
    raw = json_files.read(path)
    method = quantized.stated_method(folder, raw)
    if method is not None:
        quantized.check_plain(stored_tensors(folder), method)
    if not door.is_known(raw["model_type"]):
        added("edgevlm.families", raw["model_type"], UnsupportedModel)  # may make it known to transformers
    if "auto_map" in raw and not door.is_known(raw["model_type"]):
        raise UnsupportedModel(
            f"model type not supported: {raw['model_type']}: {path}: transformers does not know it, and the "
            "checkpoint's own code is never run"
        )
    try:
        config = door.config(folder)
    except Exception as error:  # transformers validates configs with many exception types
        raise UnsupportedModel(f"transformers cannot read this config: {path}: {reason(error)}") from error
    quantized.forget(config)
    return config


@dataclass(frozen=True, slots=True)
class WeightSource:
    """The checkpoint's tensors under the names transformers gives the model's parameters."""

    folder: Path
    tensors: Mapping[str, Weight]
    apart: tuple[str, ...] = ()
    """Parameters that the config ties to others and that are stored with values of their own."""

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def read(self, name: str) -> torch.Tensor:
        """One tensor in the checkpoint's own dtype. Raises `CheckpointError` when it is not there or unreadable."""
        if name not in self.tensors:
            raise CheckpointError(f"weight missing from the checkpoint: {name}: {self.folder}")
        return self.tensors[name].read()


def stored_tensors(folder: Path) -> list[StoredTensor]:
    """Every tensor of the checkpoint, under its own name, from the files' headers. Raises `CheckpointError`."""
    return [tensor for path in weight_files(folder).paths for tensor in index_file(path)]


def index_file(path: Path) -> list[StoredTensor]:
    """Every tensor of one file. Raises `CheckpointError`."""
    return shards.index(path) if path.suffix == ".safetensors" else torch_files.index(path)


def open_weights(folder: Path, model: PreTrainedModel, views: Views | None = None) -> WeightSource:
    """Index the weights of `folder` as `model`'s parameters: stored tensors are renamed and converted as transformers
    does (`conversion`).

    Every file's header is read, so a missing or truncated one is found before any work is done. Parameters that the
    config ties, and that are stored with different values, become parameters of their own in `model`; buffers that are
    stored get their values. `views`: what becomes of single tensors before they are `model`'s.
    Raises `CheckpointError`, and `UnsupportedModel` for weights that are no plain floats or cannot be converted.
    """
    found = stored_tensors(folder)
    quantized.check_plain(found)
    tensors = conversion.parameters(found, model)
    tensors |= {name: view(tensors[name]) for name, view in (views or {}).items() if name in tensors}
    apart = ties.settle(model, tensors)
    _check_tensors(tensors, model)
    _check_buffers(folder, tensors, model)
    skeleton.fill_buffers(model, lambda name: tensors[name].read() if name in tensors else None)
    return WeightSource(folder, tensors, apart)


def _check_tensors(tensors: Mapping[str, Weight], model: PreTrainedModel) -> None:
    """Stored weights have the shapes of the model's parameters and are plain floating-point numbers."""
    for name, parameter in (*model.named_parameters(remove_duplicate=False), *skeleton.stored_buffers(model).items()):
        stored = tensors.get(name)
        if stored is None:
            continue
        if stored.dtype not in FLOATS:
            raise UnsupportedModel(
                f"weight is not a plain float: {stored.path}: {name} is {stored.dtype}: export the original"
            )
        if stored.shape != tuple(parameter.shape):
            raise CheckpointError(
                f"weight has shape {list(stored.shape)}, the config says {list(parameter.shape)}: {stored.path}: {name}"
                f"{'' if stored.name == name else f', stored as {stored.name}'}"
            )


def _check_buffers(folder: Path, tensors: Mapping[str, Weight], model: PreTrainedModel) -> None:
    """A module of which something is stored has its buffers stored too: what it begins with is not the checkpoint's.

    Of a part of which nothing is stored nothing is missed here: a graph may leave it out.
    """
    for name in skeleton.stored_buffers(model):
        module = f"{name.rpartition('.')[0]}."
        if name not in tensors and any(other.startswith(module) for other in tensors):
            raise CheckpointError(f"weight missing from the checkpoint: {name}: {folder}: download it again")
