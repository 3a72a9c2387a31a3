"""Operators that map one to one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgevlm_export.graphs.edit import constant_before, insert_before, replace


def rotary(node: ir.Node) -> None:
    """x [1, S, heads*dim]; cos and sin hold one row for each of the S positions: [S, dim/2] becomes [1, S, dim/2]."""
    x, cos, sin = node.inputs
    batch = constant_before(node, np.array([0], np.int64))
    tables = [insert_before(node, "Unsqueeze", [table, batch], {}) for table in (cos, sin)]
    replace(node, "RotaryEmbedding", [x, *tables], {"num_heads": node.attributes["num_heads"].as_int()})


def rms_norm(node: ir.Node) -> None:
    """Computed in float32 whatever the activations are (stash_type 1)."""
    attributes = {"epsilon": node.attributes["epsilon"].as_float(), "axis": -1, "stash_type": 1}
    replace(node, "RMSNormalization", list(node.inputs), attributes)
