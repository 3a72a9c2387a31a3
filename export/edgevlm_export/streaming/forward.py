"""A model's forward pass with weights that are in memory only while their own module runs.

The skeleton of a 7B model thus runs in the memory of its largest tensor and the activations.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings
from transformers.models.lfm2.modeling_lfm2 import Lfm2ShortConv
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5GatedDeltaNet
from transformers.models.siglip.modeling_siglip import SiglipVisionEmbeddings
from transformers.models.siglip2.modeling_siglip2 import Siglip2VisionEmbeddings

from edgevlm_export.graphs.neutral import replaced

Load = Callable[[str], Tensor]
"""A parameter by name, in any floating-point type."""
Observe = Callable[[str, nn.Linear, Tensor], None]
"""Told the weight's name, the linear layer (weights in place, they may be changed) and its input, before it runs."""
Changes = Mapping[str, Callable[[Tensor], Tensor]]
"""What happens to the input of a linear layer first, by the weight's name."""

UNITS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.MultiheadAttention: ("out_proj",),
    Lfm2ShortConv: ("conv",),
    Qwen3_5GatedDeltaNet: ("conv1d",),
    Siglip2VisionEmbeddings: ("position_embedding",),
    CLIPVisionEmbeddings: ("position_embedding",),
    SiglipVisionEmbeddings: ("position_embedding",),
}
"""Modules that compute with the parameters of these modules in them without calling them."""


@contextmanager
def streamed(
    model: nn.Module,
    load: Load,
    observe: Observe | None = None,
    apart: Collection[nn.Module] = (),
    changes: Changes = MappingProxyType({}),
) -> Iterator[None]:
    """Within, `model` (a skeleton, `skeleton.build`) runs although its parameters are on the meta device.

    The caller sees to the parameters of the modules `apart`, and of what is in them (see `resident`).
    """
    hooks, kept = [], []
    others = {part for module in apart for part in module.modules()}
    for prefix, module in model.named_modules():
        names = [name for name, parameter in _own_parameters(module) if parameter.is_meta]
        if not names or module in others:
            continue
        full = {name: f"{prefix}.{name}" if prefix else name for name in names}
        if isinstance(module, PreTrainedModel):  # few and small, and methods beside forward compute with them
            kept.append((module, full))
            continue
        hooks.append(module.register_forward_pre_hook(partial(_fill, full, load, observe, changes)))
        hooks.append(module.register_forward_hook(partial(_empty, names)))
    try:
        for module, full in kept:
            _fill(full, load, None, {}, module, ())
        with torch.no_grad(), replaced(PreTrainedModel, "device", torch.device("cpu")):  # where it computes
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, full in kept:
            _empty(list(full), module, (), None)


def _own_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Those that the module's own code computes with."""
    yield from module.named_parameters(recurse=False)
    for inner in next((names for kind, names in UNITS.items() if isinstance(module, kind)), ()):
        yield from module.get_submodule(inner).named_parameters(prefix=inner)


@contextmanager
def resident(part: nn.Module, prefix: str, load: Load) -> Iterator[None]:
    """Within, every parameter of `part`, whose place in the model is `prefix`, is in memory in float32."""
    filled: list[tuple[nn.Module, list[str]]] = []
    try:
        for inner, module in part.named_modules(prefix=prefix):
            names = [name for name, parameter in module.named_parameters(recurse=False) if parameter.is_meta]
            filled.append((module, names))
            _fill({name: f"{inner}.{name}" for name in names}, load, None, {}, module, ())
        yield
    finally:
        for module, names in filled:
            _empty(names, module, (), None)


def _fill(
    names: dict[str, str],
    load: Load,
    observe: Observe | None,
    changes: Changes,
    module: nn.Module,
    inputs: tuple[Any, ...],
) -> tuple[Any, ...]:
    """A forward pre-hook: the module's inputs are what this returns."""
    for name, full in names.items():
        _place(module, name, load(full).float())
    if isinstance(module, nn.Conv2d) and observe is not None and _is_pointwise(module):
        _observe_places(names["weight"], module, inputs[0], observe)
    if not isinstance(module, nn.Linear):
        return inputs
    if names["weight"] in changes:
        inputs = (changes[names["weight"]](inputs[0]), *inputs[1:])
    if observe is not None:
        observe(names["weight"], module, inputs[0])
    return inputs


def _is_pointwise(module: nn.Conv2d) -> bool:
    """Whether it is what `graphs.pointwise` makes a linear layer of."""
    padded = module.padding not in ("valid", (0, 0))
    return (module.kernel_size, module.stride, module.groups, padded) == ((1, 1), (1, 1), 1, False)


def _observe_places(weight: str, module: nn.Conv2d, x: Tensor, observe: Observe) -> None:
    """Show a convolution over single places of x [N, in, H, W] as the linear layer over rows [N, H, W, in] that it
    is."""
    layer = nn.Linear(module.in_channels, module.out_channels, bias=False, device="meta")
    _place(layer, "weight", module.weight.flatten(1))
    observe(weight, layer, x.movedim(1, -1))
    _place(module, "weight", layer.weight[:, :, None, None])


def _empty(names: list[str], module: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
    for name in names:
        _place(module, name, module.get_parameter(name).to("meta"))


def _place(module: nn.Module, name: str, value: Tensor) -> None:
    where, _, own = name.rpartition(".")
    module.get_submodule(where)._parameters[own] = nn.Parameter(value, requires_grad=False)
