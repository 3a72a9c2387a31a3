"""Writes the bundle, and holds it to a target: measures what its decoder graph loses, and lifts the worst layers.

The loss is the mean KL divergence of the next token from the PyTorch model's, measured through the written graph, on
samples that nothing was calibrated with. Where it is too large, every layer's part in it is measured once
(`sensitivity`), layers are chosen (`lifting`), and the bundle is written and measured again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import psutil

from edgevlm_export.calibration.lifting import Layer, Lift, choose
from edgevlm_export.calibration.loss import Loss
from edgevlm_export.calibration.sensitivity import Sensitivity
from edgevlm_export.planning.plan import ExportPlan, with_exceptions
from edgevlm_export.precision import get_format
from edgevlm_export.precision.kv_cache import quantize_cache
from edgevlm_export.proof.selftest import run_bytes
from edgevlm_export.steps.state import State
from edgevlm_export.streaming.sampler import Sampler
from edgevlm_export.streaming.samples import MEASURED
from edgevlm_export.writing import bundle, output
from edgevlm_runtime.bundle.fidelity import Fidelity, LiftedLayer

logger = logging.getLogger(__name__)

ROUNDS = 4
"""Times that layers are lifted, at most."""
LARGEST = 1e9
"""Stands for infinity, which JSON does not have."""
CAUTION = 0.9
"""Part of the target that is aimed at: what is foreseen is not what is measured."""


def write(state: State) -> State:
    """Every file but the prompts' beginning, the self-test and the certificate."""
    name = state.options.name
    return replace(state, written=bundle.write_bundle(state.plan, state.folder, name, state.spool, state.progress))


def lift(state: State) -> State:
    """Write the bundle anew with layers lifted until the target holds, where there is one; the figures in its manifest.

    A target that is out of reach is a warning. Where memory cannot hold the bundle running, nothing is measured, with a
    warning.
    """
    most, plan = state.plan.precision.max_kl, state.plan
    if most is None:
        return state
    if run_bytes(state.manifest) > psutil.virtual_memory().available:
        logger.warning("not enough memory to run the bundle here: what quantization costs is not measured")
        return state
    sampler = Sampler(plan, state.material, state.progress)
    state.progress("measuring what quantization costs", 0, 1)
    samples = sampler.take(MEASURED, held_back=True)
    loss = Loss.of(sampler.model, samples, state.scratch)
    before = found = loss.measure(state.folder, state.manifest)
    state.progress("measuring what quantization costs", 1, 1)
    lifts: dict[str, Lift] = {}
    layers: list[Layer] = []
    for _ in range(ROUNDS):
        if found <= most:
            break
        layers = layers or _layers(state, sampler)
        chosen = _choose(layers, lifts, found, most)
        if chosen == lifts:
            break
        lifts = chosen
        state = _written_anew(state, with_exceptions(plan, {one.weight: one.after for one in lifts.values()}))
        found = loss.measure(state.folder, state.manifest)
    _tell(lifts, before, found, most)
    lifted = tuple(LiftedLayer(one.weight, one.before, one.after, one.added) for one in lifts.values())
    figures = Fidelity(most, min(before, LARGEST), min(found, LARGEST), int(samples.text.sum()), lifted)
    return replace(state, written=replace(state.manifest, fidelity=figures))


def _written_anew(state: State, lifted: ExportPlan) -> State:
    """In place of what was written before; the decoder's graph is a new one."""
    if state.scales:
        for name in ("decoder", *(["prefill"] if lifted.precision.widened else [])):
            quantize_cache(lifted.graphs[name].model, str(lifted.precision.kv.scales), state.scales)
    output.clear(state.folder)
    return write(replace(state, planned=lifted))


def _layers(state: State, sampler: Sampler) -> list[Layer]:
    """Every layer that can be lifted, measured."""
    decoder = sampler.plan.graphs["decoder"]
    ladders = {weight: (name, *get_format(name).finer) for weight, name in decoder.formats.items()}
    found = Sensitivity(
        model=sampler.model,
        samples=sampler.take(MEASURED),
        rows=decoder.rows,
        formats={weight: names for weight, names in ladders.items() if len(names) > 1},
        spool=state.spool,
        advance=lambda done, total: state.progress("measuring layers", done, total),
    )
    found.measure()
    return [_layer(sampler.plan, weight, names, found) for weight, names in found.formats.items()]


def _layer(plan: ExportPlan, weight: str, formats: Sequence[str], found: Sensitivity) -> Layer:
    rows, columns = plan.weights.tensors[weight].shape
    return Layer(
        weight=weight,
        group=found.groups.get(weight, weight),
        elements=rows * columns,
        formats=tuple(formats),
        costs=tuple(found.costs[weight][name] for name in formats),
        sizes=tuple(get_format(name).pack(weight, (rows, columns)).nbytes for name in formats),
    )


def _choose(layers: list[Layer], lifts: Mapping[str, Lift], found: float, most: float) -> dict[str, Lift]:
    """What to lift, all rounds together, once the costs are in proportion to what was measured."""
    foreseen = sum(layer.costs[_level(layer, lifts)] for layer in layers)
    scale = foreseen / found if math.isfinite(found) and found > 0 else 1.0
    return {lift.weight: lift for lift in choose(layers, most * CAUTION * scale)}


def _level(layer: Layer, lifts: Mapping[str, Lift]) -> int:
    lift = lifts.get(layer.weight)
    return 0 if lift is None else layer.formats.index(lift.after)


def _tell(lifts: Mapping[str, Lift], before: float, found: float, most: float) -> None:
    logger.info("KL from PyTorch's next token: %.4f before layers were lifted, %.4f after", before, found)
    for lift in lifts.values():
        logger.info("lifted %s from %s to %s: %+d bytes", lift.weight, lift.before, lift.after, lift.added)
    if found > most:
        logger.warning("KL from PyTorch's next token is %.4f: lifting layers does not reach %g", found, most)
