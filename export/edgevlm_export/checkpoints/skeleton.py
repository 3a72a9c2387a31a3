"""A model without its weights: parameters are shapes, buffers are real. Tracing needs no more."""

from __future__ import annotations

from collections.abc import Callable

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedConfig, PreTrainedModel

from edgevlm_export.checkpoints import door
from edgevlm_runtime.errors import UnsupportedModel, reason
from edgevlm_runtime.installing import pip_install

EXTRAS = {"fast_vlm": "fast-vlm"}
"""Model types whose architecture takes packages that the exporter does not bring, and the extra of it that does."""


def build(config: PreTrainedConfig) -> PreTrainedModel:
    """The architecture of `config` in float32, its parameters on the meta device, its buffers computed."""
    try:
        with init_empty_weights(include_buffers=False):
            model = door.architecture(config)
    except ImportError as error:
        extra = EXTRAS.get(config.model_type)
        remedy = "" if extra is None else f": {pip_install(f'edgevlm-export[{extra}]')}"
        raise UnsupportedModel(f"package missing for {config.model_type}: {reason(error)}{remedy}") from error
    except Exception as error:  # configs are checked by whatever a model's constructor happens to do with them
        raise UnsupportedModel(
            f"transformers cannot build this architecture: {config.model_type}: {reason(error)}"
        ) from error
    return model.eval()


@torch.no_grad()
def fill_buffers(model: nn.Module, read: Callable[[str], Tensor | None]) -> None:
    """Give the buffers that belong to a model's state what `read` has under their names, where it has anything: a
    layer's scale, the ranges of a clipped one."""
    for name in stored_buffers(model):
        if (value := read(name)) is not None:
            model.get_buffer(name).copy_(value)


def stored_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Floating-point buffers that belong to a model's state, by name."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    state = model.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if name not in parameters and value.is_floating_point()}


def fake_parameters(model: nn.Module, mode: FakeTensorMode) -> None:
    """Replace every parameter by a fake tensor on the CPU, tied parameters staying tied."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in made:
                with mode:
                    empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                made[id(parameter)] = nn.Parameter(empty, requires_grad=False)
            module._parameters[name] = made[id(parameter)]
