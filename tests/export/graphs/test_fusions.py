"""Each fusion leaves a graph's function as it is: the same graph through ONNX Runtime before and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgevlm_export.graphs.fusions import attention_bias, packed_products, residual_norms
from edgevlm_runtime.engines.ort_library import ort

HEADS, KV_HEADS, DIM, TOKENS, CACHE = 4, 2, 16, 5, 8
WIDTH = HEADS * DIM
Tensors = dict[str, np.ndarray]
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def model(nodes: list[onnx.NodeProto], inputs: Tensors, initializers: Tensors, outputs: list[str]) -> ir.Model:
    """A graph whose weights are initializers."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, _type(value), value.shape) for name, value in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10))


def _type(value: np.ndarray) -> int:
    return int(helper.np_dtype_to_tensor_dtype(value.dtype))


def run(graph: ir.Model, inputs: Tensors) -> list[np.ndarray]:
    session = ort.InferenceSession(ir.to_proto(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def fused(graph: ir.Model, fuse: Callable[[ir.Model], None], inputs: Tensors) -> Counter[str]:
    """Fuse in place; what operators there are afterwards. The outputs must be what they were."""
    before = run(graph, inputs)
    fuse(graph)
    for found, wanted in zip(run(graph, inputs), before, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    return Counter(node.op_type for node in graph.graph)


def int8_product(name: str, width: int, bias: bool) -> tuple[onnx.NodeProto, Tensors]:
    """DynamicQuantizeMatMul: weights [in, out]."""
    weights: Tensors = {
        f"{name}.w": RNG.integers(-127, 128, (WIDTH, width)).astype(np.int8),
        f"{name}.s": np.abs(normal(width)) / 100,
        **({f"{name}.b": normal(width)} if bias else {}),
    }
    inputs = ["x", f"{name}.w", f"{name}.s", "", f"{name}.b" if bias else ""]
    return helper.make_node("DynamicQuantizeMatMul", inputs, [name], domain="com.microsoft"), weights


def block_product(
    name: str, width: int, bias: bool, bits: int = 4, zeros: bool = True
) -> tuple[onnx.NodeProto, Tensors]:
    """MatMulNBits: weights [out, blocks, bytes]. Inputs that are not there are left out at the end, as formats do."""
    blocks = WIDTH // 32
    weights: Tensors = {
        f"{name}.w": RNG.integers(0, 256, (width, blocks, 32 * bits // 8)).astype(np.uint8),
        f"{name}.s": np.abs(normal(width, blocks)) / 100,
        **({f"{name}.z": RNG.integers(0, 256, (width, blocks * bits // 8)).astype(np.uint8)} if zeros else {}),
        **({f"{name}.b": normal(width)} if bias else {}),
    }
    inputs = ["x", f"{name}.w", f"{name}.s", f"{name}.z" if zeros else ""]
    inputs = [*inputs, "", f"{name}.b"] if bias else inputs[: 4 if zeros else 3]
    options = {"K": WIDTH, "N": width, "bits": bits, "block_size": 32, "accuracy_level": 4}
    return helper.make_node("MatMulNBits", inputs, [name], domain="com.microsoft", **options), weights


def attending(product: Callable[..., tuple[onnx.NodeProto, Tensors]], biases: tuple[bool, bool, bool]) -> ir.Model:
    """q, k and v by `product` into GroupQueryAttention over an empty cache."""
    widths = (WIDTH, KV_HEADS * DIM, KV_HEADS * DIM)
    made = [product(name, width, bias) for name, width, bias in zip("qkv", widths, biases, strict=True)]
    attention = helper.make_node(
        "GroupQueryAttention",
        ["q", "k", "v", "past_k", "past_v", "seqlens_k", "total"],
        ["y", "present_k", "present_v"],
        domain="com.microsoft",
        num_heads=HEADS,
        kv_num_heads=KV_HEADS,
    )
    weights = {name: value for _, tensors in made for name, value in tensors.items()}
    nodes = [*(node for node, _ in made), attention]
    return model(nodes, decoder_inputs(), weights, ["y", "present_k", "present_v"])


def decoder_inputs() -> Tensors:
    cache = np.zeros((1, KV_HEADS, CACHE, DIM), np.float32)
    return {
        "x": np.random.default_rng(1).standard_normal((1, TOKENS, WIDTH)).astype(np.float32),
        "past_k": cache,
        "past_v": cache,
        "seqlens_k": np.array([TOKENS - 1], np.int32),
        "total": np.array(TOKENS, np.int32),
    }


@pytest.mark.parametrize("biases", [(True,) * 3, (False,) * 3, (True, False, True)])
@pytest.mark.parametrize("product", [int8_product, block_product, partial(block_product, zeros=False)])
def test_packed_products(product, biases):
    graph = attending(product, biases)
    operators = fused(graph, packed_products.fuse, decoder_inputs())
    assert operators["DynamicQuantizeMatMul"] + operators["MatMulNBits"] == 1


def test_products_that_differ_stay_apart():
    """By operator, by block size, by input."""
    graph = attending(lambda name, *rest: (int8_product if name == "q" else block_product)(name, *rest), (True,) * 3)
    before = len(graph.graph)
    packed_products.fuse(graph)
    assert len(graph.graph) == before
    graph = attending(lambda *rest: block_product(*rest, bits=8 if rest[0] == "v" else 4), (True,) * 3)
    before = len(graph.graph)
    packed_products.fuse(graph)
    assert len(graph.graph) == before


def seeing(names: tuple[str, ...]) -> ir.Model:
    """q, k and v, those named with a bias, into MultiHeadAttention."""
    nodes, weights = [], {}
    for name in "qkv":
        weights[f"{name}.w"] = normal(WIDTH, WIDTH) / 8
        nodes.append(helper.make_node("MatMul", ["x", f"{name}.w"], [f"{name}.p"]))
        if name in names:
            weights[f"{name}.b"] = normal(WIDTH)
            nodes.append(helper.make_node("Add", [f"{name}.p", f"{name}.b"], [name]))
    inputs = [name if name in names else f"{name}.p" for name in "qkv"]
    nodes.append(helper.make_node("MultiHeadAttention", inputs, ["y"], domain="com.microsoft", num_heads=HEADS))
    return model(nodes, {"x": normal(2, TOKENS, WIDTH)}, weights, ["y"])


def test_attention_bias():
    operators = fused(seeing(("q", "k", "v")), attention_bias.fuse, {"x": normal(2, TOKENS, WIDTH)})
    assert operators["Add"] == 0


def test_attention_bias_of_some():
    """Then nothing is changed."""
    operators = fused(seeing(("q", "v")), attention_bias.fuse, {"x": normal(2, TOKENS, WIDTH)})
    assert operators["Add"] == 2


@pytest.mark.parametrize("used_again", [False, True])
def test_residual_norms(used_again):
    nodes = [
        helper.make_node("Add", ["x", "y"], ["sum"]),
        helper.make_node("SimplifiedLayerNormalization", ["sum", "w"], ["norm"], axis=-1, epsilon=1e-6, stash_type=1),
        helper.make_node("Mul", ["norm", "sum" if used_again else "norm"], ["z"]),
    ]
    inputs = {"x": normal(1, TOKENS, WIDTH), "y": normal(1, TOKENS, WIDTH)}
    operators = fused(model(nodes, inputs, {"w": normal(WIDTH)}, ["z"]), residual_norms.fuse, inputs)
    assert operators == {"SkipSimplifiedLayerNormalization": 1, "Mul": 1}
