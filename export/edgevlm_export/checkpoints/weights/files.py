"""Which files of a folder are the model: transformers' rule, not ours.

In this order (`transformers.modeling_utils._get_resolved_checkpoint_files`): the file that config.json names as
`transformers_weights`, model.safetensors, its index, pytorch_model.bin, its index. What comes later is left alone, even
where it is newer or the only one that is whole. `tests/export/checkpoints/weights/test_files.py` compares the choice
with transformers' own over combinations of these files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgevlm_export.checkpoints import json_files
from edgevlm_runtime.errors import CheckpointError, UnsupportedModel

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
TORCH_SINGLE = "pytorch_model.bin"
TORCH_INDEX = "pytorch_model.bin.index.json"
ORDER = (SINGLE, INDEX, TORCH_SINGLE, TORCH_INDEX)
"""The first that is there is the model."""
_INDEX_SUFFIX = ".index.json"
_DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
"""What a training on many machines saves; transformers takes it before anything else."""
_SHARD = re.compile(r".+-\d{5}-of-\d{5}\.(safetensors|bin)")


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The choice."""

    entry: Path
    """The file that decided: the weights themselves, or an index of them."""
    paths: tuple[Path, ...]
    """Files that hold tensors, in the order they are read; of two tensors of one name the later counts."""
    left_alone: tuple[Path, ...]
    """Other weights of the folder that a reader may take for the model."""

    @property
    def note(self) -> str | None:
        """A line about weights that are there and are not exported; None where there are none."""
        if not self.left_alone:
            return None
        others = ", ".join(path.name for path in self.left_alone)
        return f"the folder holds more than one set of weights: {self.entry.name} is the model, {others} is not read"


def weight_files(folder: Path) -> WeightFiles:
    """The weights of the checkpoint in `folder`. Raises `CheckpointError` where there are none, or not all of them."""
    parts = sorted(path.name for path in folder.glob("shard-*") if _DISTRIBUTED.fullmatch(path.name))
    if parts:
        raise UnsupportedModel(
            f"a distributed checkpoint: {folder / parts[0]}: load it in transformers and save it with save_pretrained()"
        )
    named = _named(folder)
    present = [folder / name for name in ORDER if (folder / name).is_file()]
    if named is not None:
        entry = named
    elif present:
        entry = present[0]
    else:
        raise CheckpointError(f"no weights: {folder}: none of {', '.join(ORDER)} is there{_hint(folder)}")
    paths = _shards(folder, entry) if entry.name.endswith(_INDEX_SUFFIX) else (entry,)
    others = tuple(path for path in present if path != entry and path not in paths)
    for path in paths:
        if not path.is_file():
            raise CheckpointError(f"weight shard missing: {path}: {_remedy(entry, others)}")
    return WeightFiles(entry, paths, others)


def _named(folder: Path) -> Path | None:
    """The file that the config names. Raises `CheckpointError` for a name that transformers does not take."""
    if not (folder / CONFIG).is_file():
        return None  # whoever needs a config says so
    name = json_files.read(folder / CONFIG).get("transformers_weights")
    if name is None:
        return None
    if not isinstance(name, str) or not name.endswith((".safetensors", f".safetensors{_INDEX_SUFFIX}")):
        raise UnsupportedModel(
            f"transformers_weights is no safetensors file: {folder / CONFIG}: {name!r}: take the key out, or name one"
        )
    return _inside(folder, name, folder / CONFIG)


def _shards(folder: Path, listing: Path) -> tuple[Path, ...]:
    names = sorted(set(json_files.read(listing, json_files.INDEX)["weight_map"].values()))
    if not names:
        raise CheckpointError(f"unreadable weight index: {listing}: it names no file")
    return tuple(_inside(folder, name, listing) for name in names)


def _inside(folder: Path, name: str, where: Path) -> Path:
    """A path below `folder`, by its words alone: hub caches link every file to elsewhere."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
        raise CheckpointError(f"a weight file outside the checkpoint: {where}: {name!r}")
    return folder / path


def _remedy(entry: Path, others: tuple[Path, ...]) -> str:
    """For a file that is named and not there."""
    if not entry.name.endswith(_INDEX_SUFFIX):
        return f"{CONFIG} names it as transformers_weights: download it, or take the key out"
    if others:
        other = f"delete the index if {others[0].name} is the model"
        return f"{entry.name} lists it: download the checkpoint again, or {other}"
    return f"{entry.name} lists it: download the checkpoint again"


def _hint(folder: Path) -> str:
    """What else could be meant by the files that are there."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    for name in names:
        plain = re.sub(r"^(model\.safetensors\.index|pytorch_model\.bin\.index)\.\w+(\.json)$", r"\1\2", name)
        plain = re.sub(r"^(model|pytorch_model)\.\w+\.(safetensors|bin)$", r"\1.\2", plain)
        if name == plain and plain in ORDER:
            gone = not (folder / name).exists()
            what = "is a link whose target is gone" if gone else "is no regular file"
            return f": {name} {what}: download the checkpoint again"
        if plain in ORDER:
            return f": {name} is a variant of it: rename it to {plain}"
    shard = next((name for name in names if _SHARD.fullmatch(name)), None)
    return "" if shard is None else f": {shard} is a shard, and its index is missing: download the checkpoint again"
