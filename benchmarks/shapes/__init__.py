"""Checkpoints with the exact shape of a real model and random weights: for speed and memory, not for answers.

Where no hub can be reached, these stand in for the real checkpoints: every product has its true size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.shapes.base import Shape
from benchmarks.shapes.llava import LLAVA
from benchmarks.shapes.smolvlm import SMOLVLM
from benchmarks.shapes.twins import TWINS
from edgevlm_export.checkpoints import skeleton
from edgevlm_export.checkpoints.weights.files import INDEX
from edgevlm_export.checkpoints.weights.ties import tied_weights

SHAPES: dict[str, Shape] = {**LLAVA, **SMOLVLM, **TWINS}
SHARD_BYTES = 4 * 2**30
POOL_VALUES = 2**24
POOL_STRIDE = 104_729
"""Between the beginnings of two tensors in the pool; odd, so that no beginning comes twice."""


def make_checkpoint(folder: Path, shape: str) -> int:
    """Write the checkpoint as sharded bfloat16 safetensors, and return the number of its parameters."""
    config = SHAPES[shape].config()
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    SHAPES[shape].save_processor(folder)
    weight_map: dict[str, str] = {}
    count = 0
    for number, shard in enumerate(_shards(config)):
        file = f"model-{number:05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
        count += sum(tensor.numel() for tensor in shard.values())
        shard.clear()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return count


def parameters(config: Any) -> dict[str, torch.Tensor]:
    """What the checkpoint holds, without values; of tied parameters only the owner. Statistics of batch normalisation,
    which are stored as well, are none of them."""
    model = skeleton.build(config)
    tied = tied_weights(model)
    return {name: parameter for name, parameter in model.named_parameters() if name not in tied}


def statistics(config: Any) -> dict[str, torch.Tensor]:
    """Means and variances of batch normalisation, without values."""
    buffers = skeleton.stored_buffers(skeleton.build(config))
    return {name: buffer for name, buffer in buffers.items() if "running_" in name}


def _shards(config: Any) -> Iterator[dict[str, torch.Tensor]]:
    """Random tensors in groups of at most SHARD_BYTES, norms at one. Values repeat a fixed pool: their making must not
    take hours. Each tensor begins elsewhere in it: no two layers are alike, for a converter that keeps equal weights
    once would make a model that fits the processor's cache."""
    pool = torch.randn(POOL_VALUES, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16) * 0.02
    shard: dict[str, torch.Tensor] = {}
    size = 0
    stored = {**parameters(config), **statistics(config)}
    for number, (name, parameter) in enumerate(stored.items()):
        values_wanted = parameter.numel()
        is_norm = parameter.ndim == 1 and name.endswith(("weight", "running_var"))
        begin = POOL_STRIDE * number % POOL_VALUES
        repeated = pool.repeat(-(-(begin + values_wanted) // POOL_VALUES))[begin : begin + values_wanted]
        values = repeated.reshape(parameter.shape) + float(is_norm)
        if size + values.nbytes > SHARD_BYTES and shard:
            yield shard
            shard, size = {}, 0
        shard[name] = values.clone()
        size += values.nbytes
    yield shard
