"""Which layers are lifted: the most loss saved for the fewest bytes, until the target holds, and no more."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevlm_export.calibration.lifting import Layer, choose


def _layer(name: str, costs: tuple[float, ...], elements: int = 1000, group: str | None = None) -> Layer:
    formats = ("int4", "int8b", "fp32")
    return Layer(name, group or name, elements, formats, costs, (elements // 2, elements, 4 * elements))


def test_nothing_is_lifted_where_the_target_holds():
    assert choose([_layer("a", (0.01, 0.001, 0.0))], 0.02) == ()


def test_the_worst_goes_first():
    lifts = choose([_layer("a", (0.01, 0.001, 0.0)), _layer("b", (0.05, 0.001, 0.0))], 0.02)
    assert [(one.weight, one.before, one.after, one.added) for one in lifts] == [("b", "int4", "int8b", 500)]


def test_bytes_count():
    """A layer that costs half as much and is a tenth of the size goes first."""
    lifts = choose([_layer("large", (0.06, 0.0, 0.0), 10_000), _layer("small", (0.03, 0.0, 0.0), 1000)], 0.07)
    assert [one.weight for one in lifts] == ["small"]


def test_layers_with_one_input_go_together():
    layers = [_layer("q", (0.05, 0.0, 0.0), group="x"), _layer("k", (0.0, 0.0, 0.0), group="x")]
    assert {one.weight for one in choose(layers, 0.01)} == {"q", "k"}


def test_further_than_the_next_format_where_that_is_not_enough():
    (lift,) = choose([_layer("a", (1.0, 0.5, 0.0))], 0.1)
    assert lift.after == "fp32"


@given(
    costs=st.lists(st.tuples(*[st.floats(0, 1)] * 3).map(lambda t: tuple(sorted(t, reverse=True))), max_size=12),
    target=st.floats(0.001, 3),
)
@settings(max_examples=60, deadline=None)
def test_the_target_holds_or_nothing_is_left_to_lift(costs, target):
    layers = [_layer(str(number), found) for number, found in enumerate(costs)]
    lifts = {one.weight: one.after for one in choose(layers, target)}
    left = sum(layer.costs[layer.formats.index(lifts.get(layer.weight, "int4"))] for layer in layers)
    assert left <= target + 1e-9 or left == pytest.approx(sum(layer.costs[-1] for layer in layers))
