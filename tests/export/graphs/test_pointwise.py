"""Convolutions over single places become linear layers: the same function, with nothing moved inside an MLP."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgevlm_export.graphs.edit import Rows
from edgevlm_export.graphs.source import GraphSource, Port
from edgevlm_export.graphs.trace import trace
from edgevlm_export.planning import graph_plan
from edgevlm_export.planning.graph_plan import GraphPlan, plan_graph
from edgevlm_export.precision.plan import GraphPrecision
from edgevlm_export.streaming.forward import streamed
from edgevlm_export.writing.writer import write_graph
from edgevlm_runtime.engines.ort_library import ort
from edgevlm_runtime.errors import CheckpointError

LAYERS = {"model.mlp.0.weight", "model.mlp.2.weight", "model.last.weight"}


@pytest.fixture(autouse=True)
def traced_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What remembers traces for other tests knows models of transformers alone."""
    monkeypatch.setattr(graph_plan, "trace", trace)


class Tower(nn.Module):
    """Of 8 channels: an MLP over single places behind a depthwise convolution and a norm, then four convolutions like
    those of the MLP, but for stride, groups, padding and a missing bias."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8))
        self.mlp = nn.Sequential(nn.Conv2d(8, 32, 1), activation, nn.Conv2d(32, 8, 1))
        self.strided = nn.Conv2d(8, 8, 1, stride=2)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2)
        self.padded = nn.Conv2d(8, 8, 1, padding=1)
        self.last = nn.Conv2d(8, 5, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mlp(self.mix(x))
        last: Tensor = self.last(self.padded(self.grouped(self.strided(x))))
        return last


class Graph(nn.Module):
    """Every wrapper holds the model as `model`; this one's model has a tower that it calls `model`."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.model = nn.ModuleDict({"model": tower})

    def forward(self, x: Tensor) -> Tensor:
        given: Tensor = self.model["model"](x)
        return given


def tower(activation: nn.Module) -> Tower:
    torch.manual_seed(0)
    made = Tower(activation)
    for _ in range(3):  # running statistics
        made.mix(3 + torch.randn(4, 8, 6, 6))
    return made.eval()


def planned(module: Tower, precision: GraphPrecision) -> GraphPlan:
    graph = Graph(deepcopy(module))
    source = GraphSource(graph, (Port("x", torch.float32, ("images", 8, 12, 10)),), ("y",), {"images": 2})
    return plan_graph("vision_encoder", source, graph.model, precision)


def outputs(module: Tower, plan: GraphPlan, folder: Path, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the written graph makes of x, and what PyTorch does."""
    values = {f"model.{name}": value for name, value in module.state_dict().items()}
    write_graph(plan, folder, SimpleNamespace(read=values.__getitem__), lambda _: None)
    session = ort.InferenceSession(str(folder / "vision_encoder.onnx"), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        return torch.from_numpy(session.run(None, {"x": x.numpy()})[0]), module(x)


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(), nn.ReLU()])
def test_same_function(activation: nn.Module, tmp_path: Path) -> None:
    """Between the halves of an MLP may be a function of one number (GELU), or operators that read it twice (SiLU)."""
    module, x = tower(activation), torch.randn(3, 8, 12, 10)
    plan = planned(module, GraphPrecision("int8", patterns={"*": "fp32"}))
    assert set(plan.formats) == LAYERS
    counts = Counter(node.op_type for node in plan.model.graph)
    assert counts["Conv"] == 4
    assert counts["FusedMatMul"] == 3
    assert counts["Transpose"] == (6 if isinstance(activation, nn.SiLU) else 4)
    found, wanted = outputs(module, plan, tmp_path, x)
    assert relative(found, wanted) < 1e-6


@pytest.mark.parametrize("fmt", ["int8", "int8b", "int4:nearest"])
def test_quantized_like_every_linear_layer(fmt: str, tmp_path: Path) -> None:
    module, x = tower(nn.GELU()), torch.randn(3, 8, 12, 10)
    plan = planned(module, GraphPrecision(fmt))
    assert plan.formats == dict.fromkeys(LAYERS, fmt)
    assert {name for name, rows in plan.rows.items() if rows is Rows.MIXED} == {"model.mlp.0.weight"}
    found, wanted = outputs(module, plan, tmp_path, x)
    assert 1e-4 < relative(found, wanted) < (0.2 if fmt.startswith("int4") else 0.02)


@pytest.mark.parametrize(
    ("fmt", "dialect"), [("fp32", "ort"), ("fp16", "ort"), ("int8", "standard"), ("int4", "standard")]
)
def test_convolutions_stay_where_they_are_as_fast(fmt: str, dialect: str) -> None:
    plan = planned(tower(nn.GELU()), GraphPrecision(fmt, dialect=dialect))
    counts = Counter(node.op_type for node in plan.model.graph)
    assert (counts["Conv"], counts["Transpose"], dict(plan.formats)) == (7, 0, {})


def test_one_layer_of_a_float_graph(tmp_path: Path) -> None:
    module, x = tower(nn.GELU()), torch.randn(3, 8, 12, 10)
    plan = planned(module, GraphPrecision("fp32", patterns={"*.mlp.2": "int8"}))
    assert plan.formats == {"model.mlp.2.weight": "int8"}
    found, wanted = outputs(module, plan, tmp_path, x)
    assert 1e-5 < relative(found, wanted) < 0.02


def test_a_kernel_of_another_size_is_refused(tmp_path: Path) -> None:
    """The config says one place, the checkpoint has nine."""
    module, other = tower(nn.GELU()), tower(nn.GELU())
    other.last = nn.Conv2d(8, 5, 3, bias=False)
    plan = planned(module, GraphPrecision("int8", patterns={"*.last": "fp32"}))
    with pytest.raises(CheckpointError, match=r"weight has shape \[5, 8, 3, 3\], the config says \[5, 8\]: model.last"):
        outputs(other, plan, tmp_path, torch.zeros(1, 8, 12, 10))


def test_observed_as_linear_layers() -> None:
    """Calibration sees rows of places, and what it makes of a weight is what the module computes with."""
    module, x = tower(nn.GELU()), torch.randn(2, 8, 12, 10)
    skeleton = deepcopy(module)
    for part in skeleton.modules():
        for name, parameter in part.named_parameters(recurse=False):
            setattr(part, name, nn.Parameter(parameter.to("meta")))
    seen: dict[str, Tensor] = {}

    def observe(name: str, layer: nn.Linear, rows: Tensor) -> None:
        seen[name] = rows @ layer.weight.T
        layer.weight.data = 2 * layer.weight

    with streamed(skeleton, module.state_dict().__getitem__, observe):
        found = skeleton(x)
    with torch.no_grad():
        first = module.mlp[0](module.mix(x)) - module.mlp[0].bias[:, None, None]
        for layer in (module.mlp[0], module.mlp[2], module.last):
            layer.weight *= 2
        torch.testing.assert_close(found, module(x))
    assert {f"model.{name}" for name in seen} == LAYERS
    np.testing.assert_allclose(seen["mlp.0.weight"].movedim(-1, 1), first, atol=1e-6)
