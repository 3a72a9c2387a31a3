"""How a program is started without AVX-512, and whether that worked: what each library of an environment does then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.isa import commands
from edgevlm_runtime import child

LIBRARY, CPU_INFO = "hide_avx512.so", "cpuinfo"
"""Of a room."""
_MOUNT = 'mount --bind "$1" /proc/cpuinfo && shift && exec "$@"'
CHECK = """\
import importlib.util
import numpy as np

found = []
if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
    # Without VNNI its fast products add pairs in 16 bits, and these do not fit.
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.full((64, 64), 127, np.int8), "w")
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", 64])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.INT32, ["n", 64])]
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "g", inputs, outputs, [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    product = session.run(None, {"x": np.full((64, 64), 255, np.uint8)})[0]
    found += ["onnxruntime"] if (product == 255 * 127 * 64).all() else []
if importlib.util.find_spec("torch"):
    import torch

    found += ["torch"] if torch.backends.cpu.get_cpu_capability() == "AVX512" else []
if importlib.util.find_spec("openvino"):
    import openvino

    found += ["openvino"] if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else []
from numpy._core._multiarray_umath import __cpu_features__ as features

found += ["numpy"] if features.get("AVX512F") else []
print(*found)
"""
"""Prints the libraries that still use what is hidden."""


def within(room: Path, command: Sequence[str]) -> list[str]:
    """The command that runs another without AVX-512. Needs root."""
    words = ["unshare", "--mount", "sh", "-c", _MOUNT, "sh", str(room / CPU_INFO)]
    return [*words, "env", f"LD_PRELOAD={room / LIBRARY}", *command]


def check(room: Path, python: Path) -> None:
    """Ask the libraries of an environment's copy. Raises `RuntimeError` for any that sees more than it should."""
    done = commands.run(*within(room, child.command(["-c", CHECK], python)))
    if done.returncode != 0:
        raise RuntimeError(f"{python} cannot be checked: {done.stderr.strip()[-300:]}")
    if done.stdout.split():
        raise RuntimeError(f"{python}: the processor is not hidden from {done.stdout.strip()}")
