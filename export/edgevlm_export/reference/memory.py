"""What a reference needs of memory, from the checkpoint's headers, before anything of it is loaded."""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import torch

from edgevlm_export.checkpoints import checkpoint, skeleton
from edgevlm_export.checkpoints.weights.names import Names
from edgevlm_export.checkpoints.weights.shards import FLOATS, StoredTensor
from edgevlm_export.streaming.model import HEAD_ROWS
from edgevlm_runtime.errors import ExportError

HEADROOM = 1.3
"""Memory the model needs while it runs, over its weights."""
ROWS = 1024
"""Text positions that the certificate's prompts have together, at most."""
WORKING_BYTES = 2**29
"""Activations and attention of a layer."""
_M_MMAP_THRESHOLD = -3
"""glibc's name for the size from which a block is the system's own, in malloc.h."""
_LAYER = re.compile(r"^(.*\.(?:layers|blocks)\.\d+)\.")


class ReferenceTooLarge(ExportError):
    """PyTorch cannot hold the model in this machine's memory."""


def weight_bytes(folder: Path, dtype: torch.dtype = torch.float32) -> int:
    """Bytes the checkpoint's tensors take in `dtype`, from the shards' headers. Raises `CheckpointError`."""
    return sum(_elements(tensor) for tensor in _tensors(folder)) * dtype.itemsize


def whole_bytes(folder: Path, dtype: torch.dtype = torch.float32) -> int:
    """Memory of the model as PyTorch runs it. Raises `CheckpointError`."""
    return int(weight_bytes(folder, dtype) * HEADROOM)


def streamed_bytes(folder: Path) -> int:
    """Memory of the model run layer by layer in float32: the largest layer, or module outside of layers (projector,
    merger, patch embeddings), its largest tensor once more as it is read, and logits of both sides of a comparison.
    Tables with one row per token are read `HEAD_ROWS` at a time. Tensors of another type than most, and those that
    transformers converts, are in memory from the beginning. Raises `CheckpointError`.
    """
    config = checkpoint.load_config(folder)
    vocabulary = int(config.get_text_config().vocab_size)
    modules: Counter[str] = Counter()
    largest = 0
    tensors = _tensors(folder)
    for tensor in tensors:
        layer = _LAYER.match(tensor.name)
        share = 1.0
        if layer is None and len(tensor.shape) == 2 and tensor.shape[0] >= vocabulary:
            share = min(1.0, HEAD_ROWS / tensor.shape[0])
        modules[layer[1] if layer else tensor.name.rpartition(".")[0]] += int(_elements(tensor) * share)
        largest = max(largest, int(tensor.nbytes * share))
    copied = sum(map(_elements, copied_tensors(tensors)))
    converted = sum(tensor.nbytes for tensor in Names.of(skeleton.build(config)).converted(tensors))
    needed = (max(modules.values(), default=0) + copied + 2 * ROWS * vocabulary) * 4
    return needed + converted + largest + WORKING_BYTES


def common_type(tensors: Sequence[StoredTensor]) -> str:
    """The type that most of the weights have: those are views of their files where transformers loads them in it."""
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.dtype in FLOATS:
            sizes[tensor.dtype] += tensor.nbytes
    return max(sizes, key=sizes.__getitem__, default="F32")


def copied_tensors(tensors: Sequence[StoredTensor]) -> list[StoredTensor]:
    """Weights of another type, which are copies in float32."""
    common = common_type(tensors)
    return [tensor for tensor in tensors if tensor.dtype in FLOATS and tensor.dtype != common]


def available() -> int:
    """Bytes that programs can have here now."""
    return int(psutil.virtual_memory().available)


def give_back_large_blocks() -> None:
    """Have the C library return every freed block of a MiB or more to the system at once; nothing where it cannot.

    Left alone, glibc keeps blocks of up to 32 MiB. Weights that come and go then leave holes between what stays, and a
    vision tower run module by module took 840 MiB instead of 60.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**20)


def check_memory(folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Raise `ReferenceTooLarge` when the whole model does not fit."""
    needed, free = whole_bytes(folder, dtype), available()
    if needed > free:
        raise ReferenceTooLarge(
            f"PyTorch needs about {needed / 2**30:.1f} GiB for {folder}, {free / 2**30:.1f} GiB are available: "
            "close other programs, or use a larger machine for the reference"
        )


def _tensors(folder: Path) -> list[StoredTensor]:
    return checkpoint.stored_tensors(folder)


def _elements(tensor: StoredTensor) -> int:
    return int(np.prod(tensor.shape, dtype=np.int64))
