"""What quantizing the decoder was allowed to cost, and does: a part of the manifest."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LiftedLayer:
    """A layer that the exporter stores in a finer format than the plan said, to keep what quantization costs small."""

    layer: str
    """Parameter name."""
    before: str
    """Its precision as planned."""
    after: str
    """Its precision in the bundle."""
    added_bytes: int
    """By how much that is larger."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What quantizing the decoder was allowed to cost, and does: mean KL divergence of the next token from PyTorch's,
    in nats per position, on samples that nothing was calibrated with."""

    most: float
    """What was allowed."""
    before: float
    """With every layer as planned."""
    found: float
    """With the lifted layers."""
    positions: int
    """Tokens over which the mean is taken."""
    lifted: tuple[LiftedLayer, ...] = ()
    """The layers with a finer format, in the order in which they were given it."""
