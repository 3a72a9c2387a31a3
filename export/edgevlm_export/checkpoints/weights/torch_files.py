"""PyTorch's own weight files (`pytorch_model.bin`), tensor by tensor.

Such a file is a ZIP archive: a pickle that says where each tensor lies, and the tensors' bytes as they are. The pickle
is read by PyTorch's restricted unpickler (`weights_only`), which runs no code, and without any of the bytes; then the
tensors are read from their places like those of a safetensors file. Files of PyTorch before 1.6 are not archives and
cannot be read in part.
"""

from __future__ import annotations

import pickle
import re
import shlex
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from edgevlm_export.checkpoints import door
from edgevlm_export.checkpoints.weights.shards import StoredTensor, dtype_name
from edgevlm_runtime.errors import CheckpointError, UnsupportedModel, reason

_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
"""What torch's unpickler names that it refuses."""
_BYTEORDER = "byteorder"
_BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""A pickle of PyTorch's magic number begins such a file."""


def index(path: Path) -> list[StoredTensor]:
    """Every tensor of a file. Raises `CheckpointError` for one that is missing, damaged, or holds what is no tensor."""
    _check_archive(path)
    try:
        state = door.saved_layout(path)
    except pickle.UnpicklingError as error:  # its text goes on to say how to run what is in the file
        named = _GLOBAL.search(str(error))
        raise CheckpointError(
            f"not a model's weights: {path}: it holds what is no tensor{f' ({named[1]})' if named else ''}, and is not "
            "loaded: save the model with save_pretrained()"
        ) from error
    except Exception as error:  # torch refuses in many ways
        raise CheckpointError(
            f"cannot read the weights: {path}: {reason(error)}: download the checkpoint again, or save it with "
            "save_pretrained()"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"not a model's weights: {path}: it holds a {type(state).__name__}, not named tensors")
    return list(_tensors(path, state))


def _check_archive(path: Path) -> None:
    try:
        with path.open("rb") as file:
            if file.read(len(_BEFORE_1_6)) == _BEFORE_1_6:
                raise UnsupportedModel(
                    "weights in the format of PyTorch before 1.6, which cannot be read in part: convert them once: "
                    f"{_conversion(path)}"
                )
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                name = entry.filename.rpartition("/")[2]
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise CheckpointError(f"compressed weights: {path}: {entry.filename}: save them with torch.save()")
                if name == _BYTEORDER and archive.read(entry).strip() == b"big":
                    raise UnsupportedModel(f"weights of a big-endian machine: {path}: save them again on this one")
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise CheckpointError(f"damaged weights: {path}: {error}: download the checkpoint again") from error


def _conversion(path: Path) -> str:
    """A shell command that writes an old file anew, in today's format."""
    code = f"import torch; torch.save(torch.load({str(path)!r}, weights_only=True), {f'{path}.new'!r})"
    python, code, new, old = (shlex.quote(word) for word in (sys.executable, code, f"{path}.new", str(path)))
    return f"{python} -c {code} && mv {new} {old}"


def _tensors(path: Path, state: dict[Any, Any]) -> Iterator[StoredTensor]:
    size = path.stat().st_size
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise CheckpointError(
                f"not a model's weights: {path}: {name!r} is a {type(tensor).__name__}, not a tensor: save the state "
                "dict alone"
            )
        strided = tensor.layout is torch.strided and not tensor.is_quantized
        begin = getattr(tensor.untyped_storage(), "_checkpoint_offset", None) if strided else None
        if begin is None:
            raise UnsupportedModel(f"weight of a kind that cannot be read: {path}: {name} is {tensor.layout}")
        stored = StoredTensor(
            path,
            name,
            dtype_name(tensor.dtype),
            tuple(tensor.shape),
            begin + tensor.storage_offset() * tensor.element_size(),
            tensor.numel() * tensor.element_size(),
            None if tensor.is_contiguous() else tuple(tensor.stride()),
        )
        if stored.offset < 0 or stored.offset + stored.span > size:
            raise CheckpointError(f"damaged weights: {path}: {name} ends behind the file: download it again")
        yield stored
