"""Which layers to lift to a finer format, so that a loss comes down to its target for the fewest bytes.

Costs of layers (`sensitivity`) are added up. As long as the sum is above the target, the step that saves most loss for
its bytes is taken. Layers that read the same input go together, since one product computes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEAST_PRICE = 0.25
"""Bytes a weight that every step is taken to cost at least: finer operators are slower too."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear layer that can be lifted."""

    weight: str
    group: str
    elements: int
    formats: tuple[str, ...]
    """The one it has, and finer ones."""
    costs: tuple[float, ...]
    """KL in nats that it adds under each."""
    sizes: tuple[int, ...]
    """Bytes of the weight under each."""


@dataclass(frozen=True, slots=True)
class Lift:
    """One layer stored in a finer format."""

    weight: str
    before: str
    after: str
    added: int
    """Bytes."""


def choose(layers: Sequence[Layer], target: float) -> tuple[Lift, ...]:
    """The lifts that bring the sum of all layers' costs to `target` or below; all there are when that is not enough."""
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(f"{layer.group} {len(layer.formats)}", []).append(layer)
    level = dict.fromkeys(groups, 0)
    total = sum(layer.costs[0] for layer in layers)
    while total > target:
        steps = [
            (_gain(members, level[name], to) / _price(members, level[name], to), name, to)
            for name, members in groups.items()
            for to in range(level[name] + 1, len(members[0].formats))
        ]
        best = max(steps, default=(0.0, "", 0))
        if best[0] <= 0:
            break
        _, name, to = best
        total -= _gain(groups[name], level[name], to)
        level[name] = to
    return tuple(
        Lift(layer.weight, layer.formats[0], layer.formats[to], layer.sizes[to] - layer.sizes[0])
        for name, to in level.items()
        if to
        for layer in groups[name]
    )


def _gain(members: Sequence[Layer], before: int, after: int) -> float:
    return sum(layer.costs[before] - layer.costs[after] for layer in members)


def _price(members: Sequence[Layer], before: int, after: int) -> float:
    added = sum(layer.sizes[after] - layer.sizes[before] for layer in members)
    return max(added, LEAST_PRICE * sum(layer.elements for layer in members))
