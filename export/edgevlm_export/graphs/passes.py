"""What every graph goes through before a dialect lowers it (`simplify`), and after (`finish`).

Nearly all of it is onnxscript's and onnx_ir's: `fold_constants` also turns `torch.split` into Split where sizes and
indices are constants. One rule is ours (`KeepsShape`): the library compares a Reshape's target only with shapes that it
can compute, the trace knows more.
"""

from __future__ import annotations

import logging
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.pattern import MatchResult, RewriteRuleClassBase, RewriteRuleSet
from onnxscript.rewriter.rules.common import (
    materialize_reshape_shape_rule,
    reshape_reshape_rule,
    transpose_transpose_rule,
)

SMALL = 64
"""Elements of a constant that is compared with others to find equal ones: begins and axes of slices, targets."""
ROUNDS = 4
"""A pair that goes can leave another pair side by side; traces of transformers' models need two rounds."""

# It warns of every weight, as weights have no values here.
logging.getLogger(common.DeduplicateInitializersPass.__module__).setLevel(logging.ERROR)


class KeepsShape(RewriteRuleClassBase):
    """A Reshape to the shape that its value already has, dynamic dimensions by name, is nothing."""

    def pattern(self, op: Any, value: Any, target: Any) -> Any:
        """See `RewriteRuleClassBase`."""
        return op.Reshape(value, target)

    def check(self, context: Any, value: ir.Value, target: ir.Value) -> MatchResult:
        """Both shapes are known, no dimension is anonymous, and they are equal."""
        old, new = value.shape, context.output_values[0].shape
        result = MatchResult()
        if old is None or old != new or any(isinstance(dim, ir.SymbolicDim) and dim.value is None for dim in old):
            return result.fail("another shape, or one that is not known")
        return result

    def rewrite(self, op: Any, value: ir.Value, target: ir.Value) -> Any:
        """See `RewriteRuleClassBase`."""
        return op.Identity(value)


KEEPS_SHAPE = KeepsShape.rule()  # type: ignore[no-untyped-call]


def simplify(model: ir.Model) -> None:
    """Reduce a fresh trace, in place, to its arithmetic: what figures out shapes, moves that cancel out and all that
    nobody uses disappear.
    """
    rules = [KEEPS_SHAPE, materialize_reshape_shape_rule, transpose_transpose_rule, reshape_reshape_rule]
    layout = ir.passes.PassManager(
        [RewritePass(RewriteRuleSet(rules)), common.IdentityEliminationPass()], steps=ROUNDS, early_stop=True
    )
    _fold(model)
    passes = ir.passes.Sequential(
        common.RemoveUnusedNodesPass(),
        layout,
        common.DeduplicateInitializersPass(SMALL),
        common.CommonSubexpressionEliminationPass(size_limit=SMALL),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveUnusedNodesPass(),
    )
    passes(model)


def _fold(model: ir.Model) -> None:
    """Constant folding, but for CastLike, which makes a convolution's bias of zeros: as a constant it has ONNX Runtime
    take another kernel, which is no faster (measured) and rounds otherwise, so that bundles would change."""
    kept = [node for node in model.graph if node.op_type == "CastLike"]
    for node in kept:
        node.domain = "kept"  # of an operator set that the model does not import: passed over
    optimizer.fold_constants(model, onnx_shape_inference=False)
    for node in kept:
        node.domain = ""


def finish(model: ir.Model) -> None:
    """Last pass after lowering: constants become initializers, nothing unused stays, neutral domains are gone."""
    passes = ir.passes.Sequential(
        common.CommonSubexpressionEliminationPass(size_limit=SMALL),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.ClearMetadataAndDocStringPass(),
    )
    passes(model)
