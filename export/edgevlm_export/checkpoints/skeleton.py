"""A model without its weights: parameters are shapes, buffers are real. Tracing needs no more."""

from __future__ import annotations

import torch
from accelerate import init_empty_weights
from torch import nn
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
    _take_statistics(model)
    return model.eval()


def _take_statistics(model: nn.Module) -> None:
    """What a checkpoint stores of running statistics (batch normalisation) are weights like others: parameters."""
    for module in model.modules():
        kept = module._buffers.keys() - module._non_persistent_buffers_set
        for name in [name for name in module._buffers if name in kept]:
            buffer = module._buffers[name]
            if buffer is not None and buffer.is_floating_point():
                del module._buffers[name]
                module.register_parameter(name, nn.Parameter(buffer.to("meta"), requires_grad=False))


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
