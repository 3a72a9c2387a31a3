"""Traces of tiny models, made once in a run of the tests: nearly all of a tiny export is `torch.onnx.export`.

A trace depends on the wrapper around the model's submodules, on the graph's ports and on the configuration; of that, on
the parts (text, vision) whose weights the graph has, and on what belongs to no part. These are its name. What comes
after the trace (passes, transforms, formats, weights) is done anew each time, on a copy of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from tests.support import shared

CHILDREN = Path(__file__).parent / "children"
ORDER = "initializers"
"""Metadata: the names of the initializers, by which the weights in a file are ordered."""


def remember() -> None:
    """From now on, this process traces what nobody in the run has traced. What is heavy is imported here."""
    from edgevlm_export.graphs.trace import trace
    from edgevlm_export.planning import graph_plan

    def remembered(source: Any, model: Any) -> Any:
        about = _About(source, model)
        with shared.alone(about.name(about.parts)):
            for parts in _subsets(about.parts):
                if (path := shared.folder() / about.name(parts)).exists():
                    return _load(path)
            made = trace(source, model)
            path = shared.folder() / about.name(about.used(made))
            _save(made, path)
        return _load(path)

    if graph_plan.trace is trace:
        graph_plan.trace = remembered  # type: ignore[attr-defined]
        _keep_operators()


def _keep_operators() -> None:
    """What torch.onnx.export makes anew for each trace out of all operators that there are, a third of a tiny one:
    read from the sources of torchlib, and asked of PyTorch's dispatcher.
    """
    from torch._export.utils import _collect_all_valid_cia_ops
    from torch.export import decomp_utils, exported_program
    from torch.onnx._internal.exporter import _decomp
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    make_table, tables = _decomp.create_onnx_friendly_decomposition_table, dict[frozenset[Any], dict[Any, Any]]()

    def table(registered: set[Any]) -> dict[Any, Any]:
        key = frozenset(registered)
        if key not in tables:
            tables[key] = make_table(registered)
        return dict(tables[key])  # whoever gets one changes it

    ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))  # type: ignore[method-assign]
    _decomp.create_onnx_friendly_decomposition_table = table
    collected = functools.cache(_collect_all_valid_cia_ops)
    exported_program._collect_all_valid_cia_ops = collected
    decomp_utils._collect_all_valid_cia_ops = collected


def for_children() -> dict[str, str]:
    """Children with this environment do likewise, where the command that they run is not what is tested."""
    folders = filter(None, [str(CHILDREN), os.environ.get("PYTHONPATH")])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}


class _About:
    """What a trace depends on, by parts: those of the model's configuration, by name, and the rest."""

    def __init__(self, source: Any, model: Any) -> None:
        config = _plain(model.config.to_dict())
        kinds = {type(getattr(model.config, name)): name for name in model.config.sub_configs}
        owner = {id(tensor): "text_config" for tensor in model.get_output_embeddings().parameters()}
        for module in model.modules():
            if name := kinds.get(type(getattr(module, "config", None))):
                owner |= dict.fromkeys(map(id, (*module.parameters(), *module.buffers())), name)
        self._tensors: dict[str, set[str]] = {name: set() for name in ("", *kinds.values())}
        self._facts: dict[str, list[object]] = {name: [config.pop(name, None)] for name in self._tensors}
        self._facts["text_config"].append(config.pop("tie_word_embeddings", None))
        self._facts[""] = [config, *_wrapper(source, model)]
        for name, tensor in (*source.module.named_parameters(), *source.module.named_buffers()):
            part = owner.get(id(tensor), "")
            self._tensors[part].add(name.removeprefix("model."))
            self._facts[part].append([name, tuple(tensor.shape), str(tensor.dtype), _content(tensor)])
        self.parts = tuple(self._tensors)

    def used(self, made: Any) -> tuple[str, ...]:
        """The parts that a trace has something of."""
        found = set(made.graph.initializers)
        names = found | {name.removeprefix("model.") for name in found}  # a trace calls parameters as the model does
        return tuple(part for part in self.parts if not part or names & self._tensors[part])

    def name(self, parts: Iterable[str]) -> str:
        """The file of a trace that depends on `parts`."""
        facts = json.dumps([[part, self._facts[part]] for part in parts], sort_keys=True, default=repr)
        return f"trace-{hashlib.sha256(facts.encode()).hexdigest()[:32]}.onnx"


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """Without the folder it was read from."""
    kept = {name: value for name, value in config.items() if name != "_name_or_path"}
    return {name: _plain(value) if isinstance(value, dict) else value for name, value in kept.items()}


def _subsets(parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """All that hold the first."""
    for count in range(len(parts)):
        yield from ((parts[0], *more) for more in combinations(parts[1:], count))


def _wrapper(source: Any, model: Any) -> Iterator[object]:
    """The ports, and the modules that are around the model, with their plain attributes."""
    yield {field.name: getattr(source, field.name) for field in dataclasses.fields(source) if field.name != "module"}
    inside = set(map(id, model.modules()))
    for name, module in source.module.named_modules():
        if id(module) not in inside:
            plain = {key: value for key, value in vars(module).items() if not key.startswith("_")}
            yield [name, f"{type(module).__module__}.{type(module).__qualname__}", plain]


def _content(tensor: Any) -> str:
    """The values of a buffer that has any: rescaling and normalization among them."""
    import torch

    if isinstance(tensor, torch.nn.Parameter) or tensor.is_meta or type(tensor) is not torch.Tensor:
        return ""
    return hashlib.sha256(tensor.detach().double().numpy().tobytes()).hexdigest()


def _save(model: Any, path: Path) -> None:
    """Initializers without values, which an ONNX file cannot hold, become inputs; the order of all goes with them."""
    import onnx_ir as ir

    initializers = model.graph.initializers
    model.metadata_props[ORDER] = json.dumps(list(initializers))
    bare = [value for value in initializers.values() if value.const_value is None]
    for value in bare:
        del initializers[value.name]
    model.graph.inputs.extend(bare)
    ir.save(model, path.with_suffix(".partial"), format="protobuf")
    path.with_suffix(".partial").rename(path)


def _load(path: Path) -> Any:
    import onnx_ir as ir

    model = ir.load(path, format="protobuf")
    order = json.loads(model.metadata_props.pop(ORDER))
    initializers = model.graph.initializers
    known = dict(initializers)
    while len(known) < len(order):
        value = model.graph.inputs.pop()
        known[value.name] = value
    initializers.clear()
    for name in order:
        value = initializers[name] = known[name]
        if value.const_value is not None:  # as torch.onnx makes them: in memory, and writable
            value.const_value = ir.Tensor(value.const_value.numpy().copy(), name=name)
    return model
