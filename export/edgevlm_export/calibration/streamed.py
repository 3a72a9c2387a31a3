"""A model's forward pass with weights that are in memory only while their own module runs.

The skeleton of a 7B model thus runs in the memory of its largest tensor and the activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Load = Callable[[str], Tensor]
"""A parameter by name, in any floating-point type."""
Observe = Callable[[str, nn.Linear, Tensor], None]
"""Told the weight's name, the linear layer (weights in place, they may be changed) and its input, before it runs."""


@contextmanager
def streamed(model: nn.Module, load: Load, observe: Observe | None = None) -> Iterator[None]:
    """Within, `model` (a skeleton, `skeleton.build`) runs although its parameters are on the meta device."""
    hooks = []
    for prefix, module in model.named_modules():
        names = [name for name, parameter in module.named_parameters(recurse=False) if parameter.is_meta]
        if not names:
            continue
        full = {name: f"{prefix}.{name}" if prefix else name for name in names}
        hooks.append(module.register_forward_pre_hook(partial(_fill, full, load, observe)))
        hooks.append(module.register_forward_hook(partial(_empty, names)))
    try:
        with torch.no_grad():
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _fill(
    names: dict[str, str], load: Load, observe: Observe | None, module: nn.Module, inputs: tuple[Any, ...]
) -> None:
    for name, full in names.items():
        module._parameters[name] = nn.Parameter(load(full).float(), requires_grad=False)
    if observe is not None and isinstance(module, nn.Linear):
        observe(names["weight"], module, inputs[0])


def _empty(names: list[str], module: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
    for name in names:
        parameter = module._parameters[name]
        assert parameter is not None
        module._parameters[name] = nn.Parameter(parameter.to("meta"), requires_grad=False)
