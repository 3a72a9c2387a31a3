"""Graph passes, one a file. Each is an `onnx_ir` pass and says whether it changed anything.

`simplify` is what every trace goes through before a dialect lowers it: shape arithmetic, layout changes that cancel
out and everything unused disappear; what is left is the arithmetic.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from edgevlm_export.graphs.passes.cancel_layout import CancelLayoutPass
from edgevlm_export.graphs.passes.fold_integers import FoldIntegersPass
from edgevlm_export.graphs.passes.split_sequence import SplitSequencePass
from edgevlm_export.graphs.passes.static_reshape import StaticReshapePass

__all__ = ["CancelLayoutPass", "FoldIntegersPass", "SplitSequencePass", "StaticReshapePass", "finish", "simplify"]


def simplify(model: ir.Model) -> None:
    """Reduce a fresh trace, in place, to its arithmetic."""
    passes = ir.passes.Sequential(
        StaticReshapePass(),
        FoldIntegersPass(),
        SplitSequencePass(),
        common.RemoveUnusedNodesPass(),
        CancelLayoutPass(),
        common.IdentityEliminationPass(),
        common.CommonSubexpressionEliminationPass(size_limit=64),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveUnusedNodesPass(),
    )
    passes(model)


def finish(model: ir.Model) -> None:
    """Last pass after lowering: constants become initializers, nothing unused stays, neutral domains are gone."""
    passes = ir.passes.Sequential(
        common.CommonSubexpressionEliminationPass(size_limit=64),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.ClearMetadataAndDocStringPass(),
    )
    passes(model)
