"""A template's program with the counting in it.

Each block of statements begins by counting its own nodes and the text that it writes out; comparisons, joined texts and
slices, which Jinja compiles to Python's own operators, become filters of names that no template can write.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from edgevlm_runtime.text.sandbox.budget import MOST_BITS

STEP = "#step"
"""Counts the steps and characters that it is given."""
TESTED = "#tested"
"""The value itself, once the steps of computing it are counted."""
LOOK = "#look"
"""The value itself, once a look at all of it is counted."""
LOOK_WITHIN = "#look within"
"""As `LOOK`, for what is searched: a dictionary is not read through."""
SLICED = "#sliced"
"""The value itself, once a copy of it is counted."""
JOINED = "#joined"
"""The texts of a list of values, one after the other."""

BODIES = ("body", "else_")
"""Fields of nodes that hold statements run as one block."""
_LITTLE = 256
_OUTPUT = 8
_REFUSED = (nodes.ScopedEvalContextModifier, nodes.EvalContextModifier, nodes.OverlayScope)
"""What would change the meaning of the rest: {% autoescape %}."""


class NotAllowed(ValueError):
    """The template uses what no chat template needs."""


def counted(template: nodes.Template) -> nodes.Template:
    """The program with the counting in it. Raises `NotAllowed`."""
    changed: nodes.Template = _Counting().visit(template)
    return changed


class _Counting(NodeTransformer):
    """Visits the children first, so that what is put in is not visited again."""

    # ruff: noqa: N802 -- Jinja calls visitors by the names of nodes

    def generic_visit(self, node: nodes.Node, *args: object, **kwargs: object) -> nodes.Node:
        if isinstance(node, _REFUSED):
            raise NotAllowed("it changes how text is escaped, which no chat template does")
        counts = {name: _count(body) for name in BODIES if (body := getattr(node, name, None))}
        super().generic_visit(node, *args, **kwargs)
        for name, (steps, characters) in counts.items():
            count = _filter(nodes.Const(steps), STEP, nodes.Const(characters))
            setattr(node, name, [nodes.ExprStmt(count, lineno=node.lineno), *getattr(node, name)])
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        steps = 0 if node.test is None else _count([node.test])[0]
        self.generic_visit(node)
        if not node.body:
            node.body = [nodes.ExprStmt(_filter(nodes.Const(1), STEP, nodes.Const(0)), lineno=node.lineno)]
        if node.test is not None:
            node.test = _filter(cast(nodes.Expr, node.test), TESTED, nodes.Const(1 + steps))
        return node

    def visit_Const(self, node: nodes.Const) -> nodes.Node:
        if isinstance(node.value, int) and node.value.bit_length() > MOST_BITS:
            raise NotAllowed("it holds a number that is too large")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), JOINED)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        first = node.ops[0]
        alone = len(node.ops) == 1 and first.op not in ("in", "notin")
        if alone and (_is_little(node.expr) or _is_little(first.expr)):
            return node  # no more of the one is looked at than of the other
        node.expr = _looked_at(node.expr, LOOK)
        for operand in node.ops:
            operand.expr = _looked_at(operand.expr, LOOK_WITHIN if operand.op in ("in", "notin") else LOOK)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _filter(node.node, SLICED)
        return node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        for pair in node.items:
            pair.key = _looked_at(pair.key, LOOK)
        return node


def _filter(value: nodes.Expr, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, list(args), [], None, None, lineno=value.lineno)


def _looked_at(node: nodes.Expr, name: str) -> nodes.Expr:
    return node if _is_little(node) else _filter(node, name)


def _is_little(node: nodes.Expr) -> bool:
    """Whether it is a short constant, or a few of them."""
    if isinstance(node, nodes.List | nodes.Tuple):
        return len(node.items) < _LITTLE and all(_is_little(item) for item in node.items)
    return isinstance(node, nodes.Const) and (not isinstance(node.value, str) or len(node.value) < _LITTLE)


def _count(statements: list[nodes.Node]) -> tuple[int, int]:
    """Nodes that belong to these statements themselves, and characters that they write out."""
    steps = characters = 0
    for node in _own(statements):
        steps += _OUTPUT if isinstance(node, nodes.Output | nodes.For | nodes.Macro | nodes.CallBlock) else 1
        if isinstance(node, nodes.TemplateData):
            characters += len(node.data)
    return steps + characters // _LITTLE, characters


def _own(statements: list[nodes.Node]) -> Iterator[nodes.Node]:
    pending = list(statements)
    while pending:
        node = pending.pop()
        yield node
        pending += node.iter_child_nodes(exclude=BODIES)
