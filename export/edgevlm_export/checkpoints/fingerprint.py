"""Which checkpoint is this? A digest that takes milliseconds, whatever the checkpoint's size.

It covers the config and, of every tensor, name, type, shape and a sample of its bytes: its beginning, middle and end.
Training changes all of a tensor's numbers, so another checkpoint of the same architecture has another digest. It finds
a wrong checkpoint, not a forged one: a change of a few numbers elsewhere in a tensor stays unseen.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from edgevlm_export.checkpoints import json_files
from edgevlm_export.checkpoints.checkpoint import stored_tensors
from edgevlm_export.checkpoints.weights.shards import StoredTensor
from edgevlm_runtime.bundle.manifest import CheckpointDigest, Manifest
from edgevlm_runtime.errors import CheckpointError

SAMPLE = 4096
"""Bytes of each of a tensor's three samples."""
COVERS = f"config.json; name, type, shape and three samples of {SAMPLE} bytes of every tensor"
_NOT_THE_MODEL = frozenset({"transformers_version", "_name_or_path"})
"""Of the config: who wrote it, not what it says."""


def fingerprint(folder: Path) -> CheckpointDigest:
    """The digest of a checkpoint; how its tensors are spread over files does not matter. Raises `CheckpointError`."""
    digest = hashlib.sha256()
    digest.update(json.dumps(_config(folder / "config.json"), sort_keys=True).encode())
    for tensor in sorted(stored_tensors(folder), key=lambda one: one.name):
        digest.update(json.dumps([tensor.name, tensor.dtype, tensor.shape]).encode())
        _sample(digest, tensor)
    return CheckpointDigest(digest.hexdigest(), COVERS)


def other_checkpoint(manifest: Manifest, folder: Path) -> str | None:
    """A line that says so when the checkpoint in `folder` is not the one the bundle was made from; else None.

    None too where nobody can tell: a bundle without a digest, or with one that covers something else.
    """
    made_from = manifest.model.checkpoint
    if made_from is None or made_from.covers != COVERS or fingerprint(folder).sha256 == made_from.sha256:
        return None
    return (
        f"{folder} is not the checkpoint that this bundle was made from ({manifest.model.name}): "
        "config or weights are others"
    )


def _config(path: Path) -> dict[str, Any]:
    return {name: value for name, value in json_files.read(path).items() if name not in _NOT_THE_MODEL}


def _sample(digest: Any, tensor: StoredTensor) -> None:
    if tensor.strides is not None:
        whole = tensor.read().view(torch.uint8).numpy().reshape(-1)
        for start in _starts(tensor.nbytes):
            digest.update(whole[start : start + SAMPLE].tobytes())
        return
    try:
        with tensor.path.open("rb") as file:
            for start in _starts(tensor.nbytes):
                file.seek(tensor.offset + start)
                digest.update(file.read(min(SAMPLE, tensor.nbytes)))
    except OSError as error:
        raise CheckpointError(f"cannot read {tensor.path}: {error.strerror or error}") from error


def _starts(nbytes: int) -> tuple[int, int, int]:
    """Where the samples of so many bytes begin."""
    last = max(nbytes - SAMPLE, 0)
    return 0, last // 2, last
