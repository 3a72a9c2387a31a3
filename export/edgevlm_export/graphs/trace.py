"""From a PyTorch module without weights to an ONNX graph without weights.

`torch.onnx.export` runs under a FakeTensorMode, so a 7B model is traced in a few hundred megabytes. The graph's
initializers keep the parameters' names; parameters have no values yet, buffers (position ids, rotary tables) do.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from transformers import PreTrainedModel

from edgevlm_export.checkpoints.skeleton import fake_parameters
from edgevlm_export.graphs import neutral, ops
from edgevlm_export.graphs.source import GraphSource
from edgevlm_runtime.errors import UnsupportedModel, reason

OPSET = 23
"""First opset with RMSNormalization, RotaryEmbedding and Attention; the standard dialect needs them."""


def trace(source: GraphSource, model: PreTrainedModel) -> ir.Model:
    """Trace one graph. `model` is the skeleton that `source.module` wraps."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake_parameters(source.module, mode)
    with mode:
        inputs = tuple(port.example(source.sizes) for port in source.inputs)
    dynamic = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, dim in enumerate(port.shape) if isinstance(dim, str)}
        for port in source.inputs
    )
    with neutral.neutral_ops(model, source.rotary, source.forwards), _quiet(), torch.no_grad():
        graph_model = _torch_export(source, inputs, (dynamic,) if _is_variadic(source) else dynamic)
    _name_dimensions(graph_model, source)
    _drop_fake_values(graph_model)
    return graph_model


def _torch_export(source: GraphSource, inputs: tuple[torch.Tensor, ...], dynamic_shapes: tuple[Any, ...]) -> ir.Model:
    """Raises `UnsupportedModel` where PyTorch cannot trace the module."""
    try:
        program = torch.onnx.export(
            source.module.eval(),
            inputs,
            dynamo=True,
            optimize=False,
            verbose=False,
            opset_version=OPSET,
            dynamic_shapes=dynamic_shapes,
            input_names=[port.name for port in source.inputs],
            output_names=list(source.outputs),
            custom_opsets={ops.DOMAIN: 1},
        )
    except Exception as error:  # whatever the model's own code raises comes wrapped in one type or another
        if isinstance(error.__cause__, UnsupportedModel):
            raise error.__cause__ from None
        raise UnsupportedModel(
            f"PyTorch cannot trace this model: {type(source.module).__name__}: {reason(error.__cause__ or error)}"
        ) from error
    assert program is not None  # None only when writing to a file
    return program.model


def _is_variadic(source: GraphSource) -> bool:
    """torch.export wants the dynamic shapes of a `*args` forward nested once more."""
    code = source.module.forward.__code__
    return bool(code.co_flags & 0x04) and code.co_argcount == 1


def _name_dimensions(model: ir.Model, source: GraphSource) -> None:
    """Give the inputs' dynamic dimensions the names the family chose, everywhere they appear."""
    names: dict[str, str] = {}
    for value, port in zip(model.graph.inputs, source.inputs, strict=True):
        assert value.shape is not None
        for dim, wanted in zip(value.shape, port.shape, strict=True):
            if isinstance(dim, ir.SymbolicDim) and dim.value is not None and isinstance(wanted, str):
                names[dim.value] = wanted
    for value in _values(model):
        if value.shape is None or not any(isinstance(dim, ir.SymbolicDim) for dim in value.shape):
            continue
        value.shape = ir.Shape(
            [names.get(dim.value or "", dim.value) if isinstance(dim, ir.SymbolicDim) else dim for dim in value.shape]
        )


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs


def _drop_fake_values(model: ir.Model) -> None:
    """Parameters keep name, type and shape only; their values are streamed in when the graph is written.

    Their names become those of the model's parameters: every wrapper holds the model as `model`.
    """
    for value in list(model.graph.initializers.values()):
        raw = getattr(value.const_value, "raw", None)
        if isinstance(raw, FakeTensor):
            value.const_value = None
            assert value.name is not None
            value.name = value.name.removeprefix("model.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch.onnx warns of missing torchvision and prints progress; neither helps here."""
    loggers = [logging.getLogger("torch.onnx"), logging.getLogger("torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
