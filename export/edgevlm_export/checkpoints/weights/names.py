"""Which parameters of a model a stored tensor is for: transformers' own rules, as its loading applies them.

Most tensors are renamed at most. Some are converted: several stored ones become one parameter (merged experts), or one
becomes several (a packed q, k and v). `conversion` makes those.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    apply_renamings,
    dot_natural_key,
    rename_source_key,
)

from edgevlm_export.checkpoints.weights.shards import StoredTensor
from edgevlm_runtime.errors import CheckpointError, reason


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stored tensor goes."""

    parameter: str
    """The first parameter that it becomes, or a part of it becomes."""
    pattern: str | None = None
    """Of the converter's source patterns the one that took the tensor; None where the tensor is renamed at most."""


@dataclass(frozen=True, slots=True)
class Names:
    """The rules of one model. `of` finds them."""

    renamings: list[WeightRenaming]
    converters: list[WeightConverter]
    base_prefix: str
    """What the names of a model without its head lack, or those of one with a head have: "model", say."""
    state: dict[str, Any]
    """The model's parameters and buffers."""

    @classmethod
    def of(cls, model: PreTrainedModel) -> Names:
        """Those of `model`, modules within it included."""
        rules = get_model_conversion_mapping(model)
        return cls(
            [rule for rule in rules if isinstance(rule, WeightRenaming)],
            [rule for rule in rules if isinstance(rule, WeightConverter)],
            model.base_model_prefix,
            model.state_dict(),
        )

    def place(self, stored: str) -> Place:
        """Where the tensor of a stored name goes; a name that is the model's own already stays as it is."""
        found = self._renamed(stored, self.renamings, self.converters)
        if found.parameter not in self.state and stored in self.state:
            return self._renamed(stored, [], [])
        return found

    def before(self, stored: str) -> str:
        """The name that a converter sees: two stored tensors that have it in common are one and the same source."""
        renamed: str = apply_renamings(stored, self.renamings)
        return renamed.removeprefix(f"{self.base_prefix}.")

    def converter(self, pattern: str) -> WeightConverter:
        """The converter of a source pattern: the last one that has it, as in transformers."""
        return next(one for one in reversed(self.converters) if pattern in one.source_patterns)

    def parameters(self, stored: str) -> tuple[str, ...]:
        """All that a stored tensor becomes or is a part of."""
        place = self.place(stored)
        if place.pattern is None:
            return (place.parameter,)
        first, *others = self.converter(place.pattern).target_patterns
        return (place.parameter, *(place.parameter.replace(first, other) for other in others))

    def converted(self, tensors: Iterable[StoredTensor]) -> list[StoredTensor]:
        """Those of which parameters are made; all others are parameters as they are."""
        return [one for one in tensors if self.place(one.name).pattern is not None] if self.converters else []

    def _renamed(self, stored: str, renamings: list[WeightRenaming], converters: list[WeightConverter]) -> Place:
        return Place(*rename_source_key(stored, renamings, converters, self.base_prefix, self.state))


def in_order(tensors: Iterable[StoredTensor]) -> list[StoredTensor]:
    """In the order that transformers takes them: experts by number. Of two tensors of one name the later counts.

    Raises `CheckpointError` for a name that transformers cannot order.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    for name, tensor in by_name.items():
        try:
            dot_natural_key(name)
        except ValueError as error:  # digits of another script
            raise CheckpointError(f"not a weight's name: {tensor.path}: {name}: {reason(error)}") from error
    return [by_name[name] for name in sorted(by_name, key=dot_natural_key)]
