"""Traces of tiny models, made once per worker: nearly all of a tiny export is `torch.onnx.export`.

A trace depends on the model's configuration, the wrapper around its submodules and the graph's ports; that is the key.
What comes after the trace (passes, transforms, formats, weights) is done anew each time, on a copy.
"""

from __future__ import annotations

import copy
import hashlib
from typing import Any

_traced: dict[str, Any] = {}


def remember() -> None:
    """Trace each kind of graph once from now on in this process. What is heavy is imported here."""
    from edgevlm_export.graphs.trace import trace
    from edgevlm_export.planning import graph_plan

    def remembered(source: Any, model: Any) -> Any:
        key = _key(source, model)
        if key not in _traced:
            _traced[key] = trace(source, model)
        return _copied(_traced[key])

    graph_plan.trace = remembered  # type: ignore[attr-defined]


def _copied(model: Any) -> Any:
    """A copy that shares nothing that is changed in place: a clone's values have the original's type objects."""
    made = model.clone()
    values = [*made.graph.inputs, *made.graph.initializers.values()]
    for value in [*values, *(value for node in made.graph for value in node.outputs)]:
        value.type = copy.copy(value.type)
    return made


def _key(source: Any, model: Any) -> str:
    module = source.module
    plain = {name: value for name, value in sorted(vars(module).items()) if isinstance(value, (int, float, str, tuple))}
    parts = [type(module).__qualname__, model.config.to_json_string(), plain, source.inputs, source.outputs]
    parts += [sorted(source.sizes.items()), source.rotary]
    parts += [[name, tuple(value.shape), str(value.dtype)] for name, value in module.named_parameters()]
    digest = hashlib.sha256(repr(parts).encode())
    for name, buffer in module.named_buffers():  # rescale and normalisation among them
        digest.update(f"{name} {buffer.dtype} {tuple(buffer.shape)}".encode())
        if not buffer.is_meta and type(buffer).__name__ != "FakeTensor":
            digest.update(buffer.detach().double().numpy().tobytes())
    return digest.hexdigest()
