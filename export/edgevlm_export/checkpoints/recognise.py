"""Folders that are not a checkpoint of transformers, and what to do with each: one table.

People have adapters, conversions for other programs, other programs' caches. Each is told apart by its files before
anything of it is loaded, so that one line says what it is instead of what it lacks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from edgevlm_export.checkpoints import json_files
from edgevlm_export.checkpoints.weights.files import CONFIG, ORDER
from edgevlm_runtime.errors import CheckpointError, UnsupportedModel
from edgevlm_runtime.reading import open_regular

ADAPTER = "adapter_config.json"
ORIGINAL_LLAVA = ("llava_llama", "llava_mistral", "llava_mpt", "llava_qwen", "llava_phi", "llava_gemma", "bunny-phi")
_ORIGINAL = "pass the folder of the safetensors checkpoint that it was made from"
_GGUF = b"GGUF"
_LFS = b"version https://git-lfs.github.com/spec/"
_CACHED = re.compile("models--")


@dataclass(frozen=True, slots=True)
class Folder:
    """What the recognisers look at."""

    path: Path
    names: frozenset[str]
    config: dict[str, Any]
    """config.json as it is; empty where there is none that can be read."""

    @property
    def has_weights(self) -> bool:
        """Whether any file is there that transformers would take for the model."""
        return any(name in self.names for name in ORDER) or "transformers_weights" in self.config


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of folder that is not a checkpoint."""

    name: str
    what: str
    tell: Callable[[Folder], bool]
    remedy: Callable[[Folder], str]


def check(path: Path) -> None:
    """Raise `UnsupportedModel` for a folder of a kind in the table; say nothing of any other."""
    folder = _look(path)
    for kind in KINDS:
        if kind.tell(folder):
            raise UnsupportedModel(f"{kind.what}: {path}: {kind.remedy(folder)}")


def refuse_file(path: Path) -> NoReturn:
    """Refuse a file that is given as the model. Raises `UnsupportedModel` for a GGUF, else `CheckpointError`."""
    if _begins(path, _GGUF) or path.suffix == ".gguf":
        raise UnsupportedModel(f"a GGUF model of llama.cpp: {path}: {_ORIGINAL}")
    if path.suffix in {".safetensors", ".bin", ".json"}:
        raise CheckpointError(f"a file of a checkpoint: {path}: pass the folder that it lies in")
    raise CheckpointError(f"not a model folder: {path}: pass a folder with config.json and model.safetensors")


def _look(path: Path) -> Folder:
    try:
        names = frozenset(entry.name for entry in path.iterdir())
    except OSError:
        return Folder(path, frozenset(), {})  # whoever reads it says what is wrong
    try:
        config = json_files.read_object(path / CONFIG, "config") if (path / CONFIG).is_file() else {}
    except CheckpointError:
        config = {}
    return Folder(path, names, config)


def _any(folder: Folder, pattern: str) -> bool:
    return any(re.fullmatch(pattern, name) for name in folder.names)


def _merge(folder: Folder) -> str:
    try:
        base = json_files.read_object(folder.path / ADAPTER, "adapter config")["base_model_name_or_path"]
    except (CheckpointError, KeyError):
        base = "its base model"
    merge = (
        f"merge it into {base} with peft (PeftModel.from_pretrained(base, adapter).merge_and_unload(), then "
        "save_pretrained() of that and of the base's processor) and export the result"
    )
    if not folder.has_weights:
        return merge
    return f"if the weights beside it are merged already, move {ADAPTER} away; else {merge}"


def _is_original_llava(folder: Folder) -> bool:
    kind = folder.config.get("model_type")
    towered = "mm_vision_tower" in folder.config or "mm_projector_type" in folder.config
    return kind in ORIGINAL_LLAVA or (towered and "text_config" not in folder.config)


def _is_pointer(folder: Folder) -> bool:
    """Whether a file that is needed is a Git LFS pointer: pictures, and `.bin` beside safetensors, are not."""
    needed = [".safetensors", ".json", ".model", ".txt", ".jinja"]
    if not _any(folder, r".*\.safetensors"):
        needed.append(".bin")
    return any(_begins(folder.path / name, _LFS) for name in sorted(folder.names) if name.endswith(tuple(needed)))


def _begins(path: Path, start: bytes) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(len(start)) == start
    except OSError:  # whoever reads it says what is wrong
        return False


KINDS = (
    Kind(
        "bundle",
        "an edgevlm bundle, not a checkpoint",
        lambda folder: {"manifest.json", "manifest.sha256"} <= folder.names,
        lambda _: "ask it with `edgevlm run`, or pass the checkpoint that it was made from",
    ),
    Kind("adapter", "a LoRA adapter, not a whole model", lambda folder: ADAPTER in folder.names, _merge),
    Kind(
        "original-llava",
        "a checkpoint of the original LLaVA code, which transformers cannot load",
        _is_original_llava,
        lambda _: (
            "take its conversion from llava-hf on the hub (llava-hf/llava-1.5-7b-hf for liuhaotian/llava-v1.5-7b), or "
            "convert it with convert_llava_weights_to_hf.py from transformers' repository"
        ),
    ),
    Kind(
        "gguf",
        "a GGUF model of llama.cpp, whose weights are quantized",
        lambda folder: _any(folder, r".+\.gguf") and not folder.has_weights,
        lambda _: _ORIGINAL,
    ),
    Kind(
        "git-lfs",
        "a clone without its large files (Git LFS pointers)",
        _is_pointer,
        lambda _: "run `git lfs pull` in it, or download the checkpoint again",
    ),
    Kind(
        "hub-cache",
        "a cache of the Hugging Face hub, not one model",
        lambda folder: _any(folder, r"models--.+") and CONFIG not in folder.names,
        lambda folder: f"pass one of its folders: {', '.join(filter(_CACHED.match, sorted(folder.names)))}",
    ),
)
"""Looked through in this order."""
