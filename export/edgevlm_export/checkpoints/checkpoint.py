"""A Hugging Face checkpoint on disk: where it is, its config, and its weights, one tensor at a time."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from edgevlm_export.checkpoints import door, json_files
from edgevlm_export.checkpoints.aliases import ALIASES, checkpoint_path
from edgevlm_export.checkpoints.shards import FLOATS, StoredTensor, index
from edgevlm_runtime.errors import CheckpointError, UnsupportedModel, reason

logger = logging.getLogger(__name__)

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DOWNLOADED = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
"""What an export needs of a hub repository."""


def locate(model: str) -> Path:
    """The folder of a checkpoint: a local folder, an alias of `models.ALIASES`, or a Hugging Face id.

    Raises `CheckpointError` when it is none of these or cannot be downloaded.
    """
    folder = Path(model).expanduser()
    try:
        exists, is_folder = folder.exists(), folder.is_dir()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"not a model's name: {reason(error)}") from error
    if is_folder:
        return folder
    if exists:
        raise CheckpointError(f"not a model folder: {model}: pass a folder with config.json and model.safetensors")
    alias = ALIASES.get(model)
    if alias is not None and alias.repo_id is None:
        return checkpoint_path()
    repo_id = model if alias is None else alias.repo_id
    if repo_id is None or repo_id.count("/") != 1 or repo_id.startswith((".", "/", "~")):
        raise CheckpointError(f"no such model: {model}: pass a folder, a Hugging Face id or one of `edgevlm models`")
    return _download(repo_id)


def _download(repo_id: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, allow_patterns=list(DOWNLOADED)))
    except Exception as error:  # the hub client raises a different type for each way a network can be missing
        logger.debug("download failed", exc_info=True)
        raise CheckpointError(
            f"cannot download {repo_id} ({reason(error)}): copy the checkpoint here by other means and pass its folder"
        ) from error


def load_config(folder: Path) -> PreTrainedConfig:
    """The checkpoint's config. Raises `CheckpointError` or `UnsupportedModel`."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"not a model folder: {folder}: config.json is missing")
    json_files.check(folder)
    raw = json_files.read(path)
    if "quantization_config" in raw or "quantization_config" in (raw.get("text_config") or {}):
        raise UnsupportedModel(
            f"the checkpoint is quantized already: {path}: export the original, with --int8 or --int4"
        )
    if "auto_map" in raw and not door.is_known(raw["model_type"]):
        raise UnsupportedModel(
            f"model type not supported: {raw['model_type']}: {path}: transformers does not know it, and the "
            "checkpoint's own code is never run"
        )
    try:
        return door.config(folder)
    except Exception as error:  # transformers validates configs with many exception types
        raise UnsupportedModel(f"transformers cannot read this config: {path}: {reason(error)}") from error


@dataclass(frozen=True, slots=True)
class WeightSource:
    """The checkpoint's tensors under the names transformers gives the model's parameters."""

    folder: Path
    tensors: Mapping[str, StoredTensor]

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def read(self, name: str) -> torch.Tensor:
        """One tensor in the checkpoint's own dtype. Raises `CheckpointError` when it is not there or unreadable."""
        if name not in self.tensors:
            raise CheckpointError(f"weight missing from the checkpoint: {name}: {self.folder}")
        return self.tensors[name].read()


def open_weights(folder: Path, model: PreTrainedModel) -> WeightSource:
    """Index the weights of `folder` under `model`'s parameter names; old names are renamed as transformers does.

    Every shard's header is read, so a missing or truncated one is found before any work is done.
    Raises `CheckpointError`.
    """
    shards = shard_names(folder)
    transforms = get_model_conversion_mapping(model)
    renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    state = model.state_dict()
    tensors: dict[str, StoredTensor] = {}
    for stored in (tensor for file in shards for tensor in index(folder / file)):
        name, converter = rename_source_key(stored.name, renamings, converters, model.base_model_prefix, state)
        if converter is not None:
            raise UnsupportedModel(f"checkpoint layout not supported: {stored.path}: {stored.name} needs conversion")
        tensors[name] = stored
    for tied, owner in tied_weights(model).items():
        for absent, present in ((tied, owner), (owner, tied)):
            if absent not in tensors and present in tensors:
                tensors[absent] = tensors[present]
        _check_tie(tensors, tied, owner)
    _check_tensors(tensors, model)
    return WeightSource(folder, tensors)


def _check_tie(tensors: Mapping[str, StoredTensor], tied: str, owner: str) -> None:
    """Two stored tensors that the config calls one must be equal; transformers would not tie them, nor may we."""
    if tied not in tensors or tensors[tied] == tensors[owner]:
        return
    if not torch.equal(tensors[tied].read(), tensors[owner].read()):
        raise UnsupportedModel(
            f"tied weights differ: {tensors[tied].path}: {tied} and {owner}: set tie_word_embeddings to false"
        )


def _check_tensors(tensors: Mapping[str, StoredTensor], model: PreTrainedModel) -> None:
    """Stored weights have the shapes of the model's parameters and are plain floating-point numbers."""
    for name, parameter in model.named_parameters():
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
            )


def tied_weights(model: PreTrainedModel) -> dict[str, str]:
    """Parameters that share one tensor: name to the name of the owner."""
    return dict(model.all_tied_weights_keys or {})


def shard_names(folder: Path) -> list[str]:
    """Files that hold the weights, as the index lists them where there is one. Raises `CheckpointError`."""
    listing = folder / INDEX
    if listing.is_file():
        try:
            names = set(json_files.read_object(listing)["weight_map"].values())
            shards = sorted(str(Path(name)) for name in names)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"unreadable weight index: {listing}: {error}") from error
        for shard in shards:
            if not (folder / shard).is_file():
                raise CheckpointError(f"weight shard missing: {folder / shard}: download the checkpoint again")
        return shards
    if (folder / SINGLE).is_file():
        return [SINGLE]
    hint = " (convert its .bin weights to safetensors first)" if any(folder.glob("*.bin")) else ""
    raise CheckpointError(f"no weights: {folder}: neither {SINGLE} nor {INDEX} is there{hint}")
