"""An ONNX graph as the library's network, and the check that it still reads everything it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgevlm_runtime.errors import ExportError

_SHOWN = 3


def parse(module: Any, builder: Any, logger: Any, file: Path) -> tuple[Any, Any]:
    """The network of one graph, strongly typed, and the parser, which owns its weights and must outlive the build.

    Raises `ExportError` for what the parser refuses, and for inputs that it drops.
    """
    flags = 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = module.OnnxParser(network, logger)
    if not parser.parse_from_file(str(file)):
        raise ExportError(f"{module.__name__} cannot compile {file.name}: {_complaint(parser)}")
    check_inputs_consumed(network, file.name)
    _allow_decomposition(module, network)
    return network, parser


def _allow_decomposition(module: Any, network: Any) -> None:
    """Attention for which there is no fused kernel (float32, some head sizes) may run as its products and softmax.

    The parser does so for a node attribute that ONNX Runtime would refuse, so it is said here.
    """
    for layer in (network.get_layer(i) for i in range(network.num_layers)):
        if layer.type == module.LayerType.ATTENTION_INPUT:
            layer.__class__ = module.IAttentionInputLayer
            layer.attention.decomposable = True


def check_inputs_consumed(network: Any, name: str) -> None:
    """Raise `ExportError` when an input feeds nothing.

    The parser accepts inputs of some operators without using them (Attention's nonpad_kv_seqlen, for one): the engine
    would then compute something else, fluently.
    """
    used = {
        tensor.name
        for layer in (network.get_layer(i) for i in range(network.num_layers))
        for tensor in (layer.get_input(i) for i in range(layer.num_inputs))
        if tensor is not None
    }
    inputs = [network.get_input(i).name for i in range(network.num_inputs)]
    dropped = [tensor for tensor in inputs if tensor not in used]
    if dropped:
        raise ExportError(
            f"{name}: the parser dropped {_listed(dropped)}: the engine would ignore what the graph computes with: "
            "export the model again with this target"
        )


def _complaint(parser: Any) -> str:
    if parser.num_errors == 0:
        return "the parser does not say why"
    error = parser.get_error(0)
    node = f"{error.node_operator()} {error.node_name()}".strip()
    return f"{node}: {error.desc()}"


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    kind = "input" if len(names) == 1 else f"{len(names)} inputs:"
    return f"{kind} {shown}{' ...' if len(names) > _SHOWN else ''}"
