"""Precision plans: for each graph, how its layers are held. `--int8` and `--int4` are plans with a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from edgevlm_export.precision import HOLDERS, get_holder
from edgevlm_export.transforms import get_transform
from edgevlm_runtime.errors import ExportError

ROLES = ("head", "mlp_down")
"""The LM head, whose bytes may be the table of token embeddings as well; the layer that reads a gated MLP's product."""


@dataclass(frozen=True, slots=True)
class GraphPrecision:
    """One graph's layers, each held by a holder named here. Raises `ExportError` for a name that no holder has."""

    default: str
    roles: Mapping[str, str] = field(default_factory=dict)
    """Holders of layers by what they are (`ROLES`), where the default is not for them."""
    exceptions: Mapping[str, str] = field(default_factory=dict)
    """Weight's parameter name to the holder of that layer."""
    transforms: tuple[str, ...] = ()
    """What is done to the graph before its weights are quantized (`edgevlm_export.transforms`), in order."""
    calibrated: bool = False
    """Whether 4-bit layers are rounded by GPTQ, on sample text, rather than to the nearest value."""

    def __post_init__(self) -> None:
        for name in (self.default, *self.roles.values(), *self.exceptions.values()):
            get_holder(name)
        if unknown := sorted(set(self.roles) - set(ROLES)):
            raise ExportError(f"unknown role of a layer: {unknown[0]}: known are {', '.join(ROLES)}")
        for transform in self.transforms:
            get_transform(transform)

    def holder_name(self, weight: str, role: str | None) -> str:
        """Who holds this layer: its own exception, else its role's holder, else the default."""
        return self.exceptions.get(weight) or self.roles.get(role or "") or self.default


@dataclass(frozen=True, slots=True)
class PrecisionPlan:
    """How every graph of a bundle is held."""

    vision_encoder: GraphPrecision
    projector: GraphPrecision
    decoder: GraphPrecision
    embedding: str
    """Holder of the token embeddings where they are a table of their own."""

    @property
    def calibrates(self) -> bool:
        """Whether any graph is calibrated."""
        return self.decoder.calibrated

    def graph(self, name: str) -> GraphPrecision:
        """By the graph's name in the bundle."""
        precision: GraphPrecision = getattr(self, name)
        return precision


def uniform(holder: str) -> PrecisionPlan:
    """Every layer of every graph held alike."""
    layers = GraphPrecision(holder)
    return PrecisionPlan(layers, layers, layers, holder)


PLANS: dict[str, PrecisionPlan] = {
    "fp32": uniform("fp32"),
    "fp16": uniform("fp16"),
    "int8": PrecisionPlan(
        vision_encoder=GraphPrecision("int8"),
        projector=GraphPrecision("int8"),
        # A gated MLP's product has outliers that no rotation of the residual stream reaches: on SmolLM2-135M its last
        # layer alone makes half of the loss (KL 0.014 -> 0.008 with that layer in blocks, top-1 93.2 -> 94.3 %).
        decoder=GraphPrecision("int8", roles={"head": "int8b", "mlp_down": "int8b"}, transforms=("rotate-residual",)),
        embedding="int8b",
    ),
    "int4": PrecisionPlan(
        vision_encoder=GraphPrecision("int8"),
        projector=GraphPrecision("int8"),
        decoder=GraphPrecision("int4", roles={"head": "int8b"}, transforms=("rotate-residual",), calibrated=True),
        embedding="int8b",
    ),
}
"""What `--fp32`, `--fp16`, `--int8` and `--int4` mean."""


def get_plan(name: str) -> PrecisionPlan:
    """The plan called `name`. Raises `ExportError`, naming those there are."""
    if name not in PLANS:
        raise ExportError(f"unknown precision: {name}: known are {', '.join(PLANS)}")
    return PLANS[name]


def choose(
    precision: str, vision: str | None = None, projector: str | None = None, decoder: str | None = None
) -> PrecisionPlan:
    """A plan with graphs exchanged. An override names a plan (whose graph is taken) or a holder (of every layer).

    Raises `ExportError` for a name that is neither.
    """
    plan = get_plan(precision)
    plan = replace(
        plan,
        vision_encoder=_override(plan, "vision_encoder", vision),
        projector=_override(plan, "projector", projector),
        decoder=_override(plan, "decoder", decoder),
    )
    if decoder is None:
        return plan
    return replace(plan, embedding=PLANS[decoder].embedding if decoder in PLANS else get_holder(decoder).table_holder)


def _override(plan: PrecisionPlan, graph: str, name: str | None) -> GraphPrecision:
    if name is None:
        return plan.graph(graph)
    if name in PLANS:
        return PLANS[name].graph(graph)
    if name.partition(":")[0] not in HOLDERS:
        known = dict.fromkeys([*PLANS, *HOLDERS])
        raise ExportError(f"unknown precision of the {graph}: {name}: known are {', '.join(known)}")
    return GraphPrecision(name)
