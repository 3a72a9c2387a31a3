"""Where onnxruntime put the operators of a graph: a provider that leaves the real work to the CPU is an error.

onnxruntime gives every operator that a provider has no kernel for to the CPU, silently, with a copy of its tensors each
way at each run. Shape arithmetic may go there; products and attention may not.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from edgevlm_runtime.engines.providers import CPU, CUDA, TENSORRT
from edgevlm_runtime.errors import ProviderError

RECORD = "session.record_ep_graph_assignment_info"
HEAVY = frozenset(
    {
        "Attention",
        "Conv",
        "DynamicQuantizeMatMul",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "Gemm",
        "GroupQueryAttention",
        "MatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "MultiHeadAttention",
        "QLinearMatMul",
        "TensorScatter",
    }
)
"""Operators that hold a model's work, or its cache."""

_USE_CPU = "use --provider cpu, or another provider"
_STANDARD = "export with --fp16 or --int4 and --target tensorrt-rtx (float16 between operators), or use --provider cpu"
_ADVICE = {CUDA: _STANDARD, TENSORRT: _STANDARD}
"""By provider: what makes its kernels fit; only where this is known."""


def check_placement(session: Any, provider: str, graph: str) -> None:
    """Raise `ProviderError` when heavy operators of a session made with `RECORD` run on the CPU instead."""
    left = Counter(
        node.op_type
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name == CPU
        for node in part.get_nodes()
        if node.op_type in HEAVY
    )
    if left:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(left.items()))
        raise ProviderError(
            f"{provider} has no kernel for {listed} of {graph}, which would run on the CPU: "
            f"{_ADVICE.get(provider, _USE_CPU)}"
        )
