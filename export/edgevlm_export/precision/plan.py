"""A precision plan: for each graph of a bundle, how its layers are stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from edgevlm_export.graphs.transforms import get_transform
from edgevlm_export.precision import get_format
from edgevlm_export.precision.kv_cache import FLOAT, KVPrecision
from edgevlm_runtime.errors import ExportError

ROLES = ("head", "mlp_down")
"""The LM head, whose bytes may be the table of token embeddings as well; the layer that reads a gated MLP's product,
or that of attention and its gate."""


def matches(pattern: str, weight: str) -> bool:
    """Whether a pattern means this layer, with or without ".weight" at its end; letters' case counts."""
    return fnmatchcase(weight, pattern) or fnmatchcase(weight.removesuffix(".weight"), pattern)


@dataclass(frozen=True, slots=True)
class GraphPrecision:
    """One graph's layers, each stored in a format named here. Raises `ExportError` for a name that no format has."""

    default: str
    roles: Mapping[str, str] = field(default_factory=dict)
    """Formats of layers by what they are (`ROLES`), where the default is not for them."""
    exceptions: Mapping[str, str] = field(default_factory=dict)
    """Weight's parameter name to the format of that layer."""
    patterns: Mapping[str, str] = field(default_factory=dict)
    """Likewise by shell pattern of the layer's name ("*.down_proj"); the first that matches counts."""
    transforms: tuple[str, ...] = ()
    """What is done to the graph before its weights are quantized (`edgevlm_export.graphs.transforms`), in order."""
    calibrated: bool = False
    """Whether 4-bit layers are rounded by GPTQ, on sample text, rather than to the nearest value."""
    dialect: str = "ort"
    """Whose formats these are (`edgevlm_export.graphs.dialects`)."""
    activations: str = "float32"
    """Type of the values between operators; "float16" in the standard dialect alone."""

    def __post_init__(self) -> None:
        for name in (self.default, *self.roles.values(), *self.exceptions.values(), *self.patterns.values()):
            get_format(name, self.dialect)
        if unknown := sorted(set(self.roles) - set(ROLES)):
            raise ExportError(f"unknown role of a layer: {unknown[0]}: known are {', '.join(ROLES)}")
        for transform in self.transforms:
            get_transform(transform)

    def format_name(self, weight: str, role: str | None) -> str:
        """Who holds this layer: its own exception, else a pattern's, else its role's format, else the default."""
        named = next((fmt for pattern, fmt in self.patterns.items() if matches(pattern, weight)), None)
        return self.exceptions.get(weight) or named or self.roles.get(role or "") or self.default


@dataclass(frozen=True, slots=True)
class PrecisionPlan:
    """How every graph of a bundle is stored."""

    vision_encoder: GraphPrecision
    projector: GraphPrecision
    decoder: GraphPrecision
    embedding: str
    """Format of the token embeddings where they are a table of their own."""
    kv: KVPrecision = FLOAT
    """How the decoder's KV cache is stored."""
    prefill: GraphPrecision | None = None
    """Of a second decoder graph, which computes prompts; None where the decoder computes them itself."""
    widened: bool = False
    """Whether that graph's weights are made on the device, of the decoder's: layer by layer it follows the decoder."""
    max_kl: float | None = None
    """What quantizing the decoder may cost, as mean KL divergence of the next token from PyTorch's, in nats per
    position: layers are lifted to finer formats until that holds. None measures nothing, as where a graph with weights
    of its own computes prompts: lifting changes the decoder's alone."""

    @property
    def calibrates(self) -> bool:
        """Whether samples are needed: to calibrate, or to measure."""
        graphs = (self.vision_encoder, self.projector, self.decoder)
        return any(one.calibrated for one in graphs) or self.measures

    @property
    def measures(self) -> bool:
        """Whether samples run through the model whatever is calibrated: for the KV cache's ranges, or a target."""
        return self.kv.scales is not None or self.max_kl is not None

    def held_to(self, max_kl: float | None) -> PrecisionPlan:
        """The same with another target; None keeps the plan's own, infinity is none.

        Raises `ExportError` for a target that means nothing, or that this decoder cannot meet.
        """
        if max_kl is None:
            return self
        if not max_kl > 0:
            raise ExportError(f"bad target: --max-kl {max_kl:g}: give a number above 0, or inf to lift no layer")
        if math.isinf(max_kl):
            return replace(self, max_kl=None)
        if self.prefill is not None and not self.widened:
            raise ExportError("--max-kl lifts layers of the decoder graph alone: leave it out, or --prefill")
        if self.decoder.dialect != "ort":
            raise ExportError("--max-kl is measured in ONNX Runtime: leave it out, or --target")
        if not get_format(self.decoder.default).finer:
            raise ExportError(f"nothing to lift: the decoder is stored in {self.decoder.default}: leave out --max-kl")
        return replace(self, max_kl=max_kl)

    def with_layers(self, layers: Mapping[str, str], dialect: str = "ort") -> PrecisionPlan:
        """The same with single layers stored otherwise: pattern to format.

        A graph for prompts is never calibrated, so there a format that needs samples is left out. Raises `ExportError`
        for no format's name.
        """
        if not layers:
            return self
        plain = {pattern: name for pattern, name in layers.items() if not needs_samples(name, dialect)}

        def changed(graph: GraphPrecision) -> GraphPrecision:
            return replace(graph, patterns=dict(layers), calibrated=graph.calibrated or len(plain) < len(layers))

        return replace(
            self,
            vision_encoder=changed(self.vision_encoder),
            projector=changed(self.projector),
            decoder=changed(self.decoder),
            prefill=None if self.prefill is None else replace(self.prefill, patterns=plain),
        )

    def graph(self, name: str) -> GraphPrecision:
        """By the graph's name in the bundle."""
        precision: GraphPrecision = getattr(self, name)
        return precision


def needs_samples(fmt: str, dialect: str) -> bool:
    """Whether a format's weights are rounded by samples (`BlockOptions.calibrated`)."""
    return get_format(fmt, dialect).calibrated
