"""How weights change while they are read from the checkpoint."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from torch import Tensor

from edgevlm_export.checkpoints.checkpoint import WeightSource
from edgevlm_export.finite import is_finite
from edgevlm_runtime.errors import CheckpointError

Read = Callable[[str], Tensor]
"""A weight of the checkpoint by name, as it is stored."""
Edit = Callable[[Tensor, Read], Tensor]
"""A weight in float32 and a way to read others, to the changed weight of the same shape."""


class NotApplicable(Exception):
    """A transform does not fit a graph; the message says why. Nothing of the graph has been changed."""


@dataclass(slots=True)
class Edits:
    """The changes to each weight of one graph, in the order they are made."""

    entries: dict[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    """What the graph does to its inputs, by their names, before the changed layers see them."""
    inputs: dict[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    """What the graph does to the input of single layers, by the weight's name, before they see it."""
    leave: Callable[[Tensor], Tensor] | None = None
    """What the graph does to its last hidden states before a final norm and a head that stay as they are stored."""
    by_name: dict[str, list[Edit]] = field(default_factory=lambda: defaultdict(list))
    mixed: dict[str, int] = field(default_factory=dict)
    """Weights whose inputs the graph mixes, with how many neighbouring channels together (`rotate_product`)."""
    lent: AbstractSet[str] = frozenset()
    """Weights that are another graph's as well: what they multiply must be what they multiply there."""
    matrices: set[str] = field(default_factory=set)
    """Weights of convolutions over single places, [out, in, 1, 1], that the graph has as matrices [out, in]."""

    def add(self, weight: str, edit: Edit) -> None:
        """Change `weight` further."""
        self.by_name[weight].append(edit)

    def read(self, weights: WeightSource, name: str) -> Tensor:
        """One weight with its changes; in the checkpoint's own dtype where there are none.

        Raises `CheckpointError` for one that cannot be read, or that becomes too large for float32.
        """
        tensor = weights.read(name)
        if name in self.matrices and tensor.shape[2:] == (1, 1):  # another shape is an error of whoever writes it
            tensor = tensor.flatten(1)
        edits = self.by_name.get(name, ())
        for edit in edits:
            tensor = edit(tensor.float(), weights.read)
        if edits and not is_finite(tensor):
            raise CheckpointError(f"weight too large for float32 once norms and rotations are folded into it: {name}")
        return tensor
