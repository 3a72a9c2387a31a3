"""How finely OpenVINO quantizes what it multiplies with stored int8 weights.

It takes the values of a row in groups, each with a scale of its own, where ONNX Runtime has one scale for a row. A
layer whose width is no multiple of the group is computed in floating point. Its own choice is 32, which is not the
fastest; all are as far from ONNX Runtime's features.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

COSTS = {128: 1.0, 64: 1.035, 32: 1.16}
"""Time of CLIP-L/336 in `int8` by group, as measured with AVX512-VNNI."""
WITHOUT = 2.2
"""The same in floating point."""


def group_size(model: Any) -> int:
    """The group with which the graph's products take the least time."""
    return best_group(_products(model))


def best_group(products: Iterable[tuple[int, int]]) -> int:
    """`products`: width and number of outputs of each layer."""
    sizes = list(products)

    def time(group: int) -> float:
        return sum(width * rows * (WITHOUT if width % group else COSTS[group]) for width, rows in sizes)

    return min(COSTS, key=time)


def _products(model: Any) -> Iterable[tuple[int, int]]:
    """Of every product with weights: constants are all that has two static dimensions and nothing else."""
    for node in model.get_ops():
        if node.get_type_name() != "MatMul":
            continue
        shape = node.input(1).get_partial_shape()
        if shape.is_static and len(shape) == 2:
            first, second = (size.get_length() for size in shape)
            yield (second, first) if node.get_attributes()["transpose_b"] else (first, second)
