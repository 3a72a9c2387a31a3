"""Precision plans that have a name: `--int8` and `--int4` are two of them."""

from __future__ import annotations

from dataclasses import replace

from edgevlm_export.precision import FORMATS, get_format
from edgevlm_export.precision.blockwise import Blockwise
from edgevlm_export.precision.kv_cache import get_kv_precision
from edgevlm_export.precision.plan import GraphPrecision, PrecisionPlan, needs_samples
from edgevlm_runtime.bundle.manifest import VALUES
from edgevlm_runtime.errors import ExportError

PREFILL = "prefill graph"
"""What messages call the decoder graph for prompts alone."""
WIDENED = "widened"
"""`--prefill widened`: what the graph for prompts multiplies is made on the device, of the decoder's weights."""
IN_BLOCKS = {"int8": "int8b"}
"""Formats that are fast on a prompt, to those which are as faithful and faster for one row."""
MIX_PRODUCT = "rotate-product"
"""The transform that costs operators of its own: it mixes channels where they are computed."""
ROTATIONS = ("rotate-residual", VALUES, MIX_PRODUCT)


def uniform(fmt: str, dialect: str = "ort", activations: str = "float32") -> PrecisionPlan:
    """Every layer of every graph stored alike."""
    layers = GraphPrecision(fmt, dialect=dialect, activations=activations)
    return PrecisionPlan(layers, layers, layers, fmt)


def _widened(plan: PrecisionPlan) -> PrecisionPlan:
    """The same with a graph for prompts that has no weights of its own. As the decoder then computes single tokens
    alone, what it held in `int8` for prompts' sake is in blocks, which are faster for one row and need no mixing."""
    decoder = plan.decoder
    default, *roles = (IN_BLOCKS.get(name, name) for name in (decoder.default, *decoder.roles.values()))
    if not isinstance(get_format(default), Blockwise):
        raise ExportError(
            f"--prefill {WIDENED} widens integers, and the decoder is stored in {default}: choose --int8 or --int4 for "
            "it, or leave it out"
        )
    transforms = tuple(key for key in decoder.transforms if key != MIX_PRODUCT)
    named = dict(zip(decoder.roles, roles, strict=True))
    single = replace(decoder, default=default, roles=named, transforms=transforms)
    prompts = GraphPrecision("int8", transforms=(*transforms, MIX_PRODUCT))
    return replace(plan, decoder=single, prefill=prompts, widened=True)


PLANS: dict[str, PrecisionPlan] = {
    "fp32": uniform("fp32"),
    "fp16": uniform("fp16"),
    "int8": PrecisionPlan(
        vision_encoder=GraphPrecision("int8"),
        projector=GraphPrecision("int8"),
        # On SmolLM2-135M (KL, top-1): row by row without rotation 0.032, 90.3 %; the residual stream rotated 0.017,
        # 92.0 %; values and the gated MLP's product as well 0.010, 94.7 %: nearly as good as block-wise weights (0.008,
        # 95.4 %), at twice to six times their speed on a prompt.
        decoder=GraphPrecision("int8", roles={"head": "int8b"}, transforms=ROTATIONS),
        embedding="int8b",
        max_kl=0.02,
    ),
    "int4": PrecisionPlan(
        vision_encoder=GraphPrecision("int8"),
        projector=GraphPrecision("int8"),
        # On SmolLM2-135M (KL, top-1): every layer in 4 bits 0.14, 78 %; with the gated MLP's last layer, a third of the
        # weights, in 8 bits 0.096, 81 %, for a tenth more bytes, in blocks as in W8A8, which is faster on a prompt.
        decoder=GraphPrecision(
            "int4", roles={"head": "int8b", "mlp_down": "int8"}, transforms=ROTATIONS, calibrated=True
        ),
        embedding="int8b",
    ),
}
"""What `--fp32`, `--fp16`, `--int8` and `--int4` mean, and the fast two below."""

FOUR_BITS = "int4:block=128"
PLANS["int8-fast"] = _widened(PLANS["int8"])
PLANS["int4-fast"] = _widened(
    replace(PLANS["int4"], decoder=replace(PLANS["int4"].decoder, default=FOUR_BITS, roles={"head": FOUR_BITS}))
)
"""Prompts widened, the decoder for single tokens; of `int4` every layer and the LM head in 4 bits."""

_W8A8 = GraphPrecision("int8", dialect="standard", activations="float16")
_ROTATED = replace(_W8A8, transforms=("rotate-residual",))
STANDARD_PLANS: dict[str, PrecisionPlan] = {
    "fp32": uniform("fp32", dialect="standard"),
    "fp16": uniform("fp16", dialect="standard", activations="float16"),
    "int8": PrecisionPlan(
        vision_encoder=_W8A8,
        projector=_W8A8,
        decoder=replace(_ROTATED, roles={"head": "int8w", "mlp_down": "int8w"}),
        embedding="int8b",
    ),
    "int4": PrecisionPlan(
        vision_encoder=_W8A8,
        projector=_W8A8,
        decoder=replace(_ROTATED, default="int4", roles={"head": "int8w"}, calibrated=True),
        embedding="int8b",
    ),
}
"""The first four in the standard dialect, for GPUs: activations in float16."""

PLANS_OF = {"ort": PLANS, "standard": STANDARD_PLANS}
"""Dialect to its plans."""


def get_plan(name: str, dialect: str = "ort") -> PrecisionPlan:
    """The plan called `name`. Raises `ExportError`, naming those there are."""
    plans = PLANS_OF[dialect]
    if name not in plans and name in PLANS:
        raise ExportError(f"--{name} is for ONNX Runtime: choose --{name.partition('-')[0]}, or leave out --target")
    if name not in plans:
        raise ExportError(f"unknown precision: {name}: known are {', '.join(plans)}")
    return plans[name]


def choose(
    precision: str,
    vision: str | None = None,
    projector: str | None = None,
    decoder: str | None = None,
    dialect: str = "ort",
    kv: str | None = None,
    prefill: str | None = None,
) -> PrecisionPlan:
    """A plan with graphs exchanged. An override names a plan (whose graph is taken) or a format (of every layer).

    `kv` names how the KV cache is stored (`KV_PRECISIONS`); `prefill` adds a graph for prompts, stored as it says,
    or `WIDENED`.
    Raises `ExportError` for a name that is none of these.
    """
    plan = get_plan(precision, dialect)
    plan = replace(
        plan,
        vision_encoder=_override(plan, "vision_encoder", vision, dialect),
        projector=_override(plan, "projector", projector, dialect),
        decoder=_override(plan, "decoder", decoder, dialect),
        kv=plan.kv if kv is None else get_kv_precision(kv, dialect),
    )
    if decoder in PLANS_OF[dialect]:
        named = PLANS_OF[dialect][decoder]
        plan = replace(
            plan, embedding=named.embedding, max_kl=named.max_kl, prefill=named.prefill, widened=named.widened
        )
    elif decoder is not None:
        table = get_format(decoder, dialect).table
        plan = replace(plan, embedding=table, max_kl=None, prefill=None, widened=False)
    return plan if prefill is None else _with_prefill(plan, prefill, dialect)


def _with_prefill(plan: PrecisionPlan, name: str, dialect: str) -> PrecisionPlan:
    """The same with a graph for prompts; without a target, which is measured in the decoder's graph alone.

    The graph's values must lie in the cache as the decoder's do, so they are transformed alike.
    """
    if dialect != "ort":
        raise ExportError("--prefill makes a graph for ONNX Runtime: leave it out, or --target")
    if name == WIDENED:
        return _widened(plan)
    given = _override(plan, PREFILL, name, dialect)
    if given.calibrated:
        raise ExportError(f"--prefill {name} would be calibrated, and no faster on a prompt: choose int8 or fp32")
    transforms = tuple(key for key in ROTATIONS if key != VALUES or VALUES in plan.decoder.transforms)
    return replace(plan, prefill=replace(given, transforms=transforms), max_kl=None, widened=False)


def _override(plan: PrecisionPlan, graph: str, name: str | None, dialect: str) -> GraphPrecision:
    plans, formats = PLANS_OF[dialect], FORMATS[dialect]
    if name is None:
        return plan.graph(graph)
    if name in plans:
        return plans[name].graph("decoder" if graph == PREFILL else graph)
    if name.partition(":")[0] not in formats:
        known = dict.fromkeys([*plans, *formats])
        raise ExportError(f"unknown precision of the {graph}: {name}: known are {', '.join(known)}")
    activations = "float16" if dialect == "standard" else "float32"
    return GraphPrecision(name, calibrated=needs_samples(name, dialect), dialect=dialect, activations=activations)
