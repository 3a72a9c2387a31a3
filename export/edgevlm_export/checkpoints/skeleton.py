"""A model without its weights: parameters are shapes, buffers are real. Tracing needs no more."""

from __future__ import annotations

import torch
from accelerate import init_empty_weights
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedConfig, PreTrainedModel

from edgevlm_export.checkpoints import door
from edgevlm_runtime.errors import UnsupportedModel, reason


def build(config: PreTrainedConfig) -> PreTrainedModel:
    """The architecture of `config` in float32, its parameters on the meta device, its buffers computed."""
    try:
        with init_empty_weights(include_buffers=False):
            model = door.architecture(config)
    except Exception as error:  # configs are checked by whatever a model's constructor happens to do with them
        raise UnsupportedModel(
            f"transformers cannot build this architecture: {config.model_type}: {reason(error)}"
        ) from error
    return model.eval()


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
