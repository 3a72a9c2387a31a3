"""Holds a bundle to a target: measures what its decoder graph loses, and lifts the worst layers until it holds.

The loss is the mean KL divergence of the next token from the PyTorch model's, measured through the written graph, on
samples that nothing was calibrated with. Where it is too large, every layer's part in it is measured once
(`sensitivity`), layers are chosen (`lifting`), and the bundle is written and measured again.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from edgevlm_export.calibration.lifting import Layer, Lift, choose
from edgevlm_export.calibration.loss import Loss
from edgevlm_export.calibration.sensitivity import Sensitivity
from edgevlm_export.planning.plan import ExportPlan, Progress, with_exceptions
from edgevlm_export.precision import get_format
from edgevlm_export.proof.selftest import run_bytes
from edgevlm_export.streaming.material import Material
from edgevlm_export.streaming.sampler import Sampler
from edgevlm_export.streaming.samples import MEASURED
from edgevlm_export.streaming.spool import Spool
from edgevlm_runtime.bundle.fidelity import Fidelity, LiftedLayer
from edgevlm_runtime.bundle.manifest import Manifest

logger = logging.getLogger(__name__)

ROUNDS = 4
"""Times that layers are lifted, at most."""
LARGEST = 1e9
"""Stands for infinity, which JSON does not have."""
CAUTION = 0.9
"""Part of the target that is aimed at: what is foreseen is not what is measured."""

Write = Callable[[ExportPlan], Manifest]
"""Writes the bundle of a plan with layers lifted, in place of the one before."""


@dataclass(frozen=True, slots=True)
class Target:
    """One export on its way to its target."""

    most: float
    """KL in nats a position."""
    material: Material
    spool: Spool
    scratch: Path
    bundle: Path
    progress: Progress

    def hold(self, plan: ExportPlan, manifest: Manifest, write: Write) -> Manifest:
        """Measure the bundle that was written, and write it anew with layers lifted until the target holds; the last
        manifest, with the figures.

        A target that is out of reach is a warning; the manifest has the figure. Where memory cannot hold the bundle
        running, nothing is measured, with a warning.
        """
        if run_bytes(manifest) > psutil.virtual_memory().available:
            logger.warning("not enough memory to run the bundle here: what quantization costs is not measured")
            return manifest
        sampler = Sampler(plan, self.material, self.progress)
        self.progress("measuring what quantization costs", 0, 1)
        samples = sampler.take(MEASURED, held_back=True)
        loss = Loss.of(sampler.model, samples, self.scratch)
        before = found = loss.measure(self.bundle, manifest)
        self.progress("measuring what quantization costs", 1, 1)
        lifts: dict[str, Lift] = {}
        layers: list[Layer] = []
        for _ in range(ROUNDS):
            if found <= self.most:
                break
            layers = layers or self._layers(sampler)
            chosen = self._choose(layers, lifts, found)
            if chosen == lifts:
                break
            lifts = chosen
            manifest = write(with_exceptions(plan, {lift.weight: lift.after for lift in lifts.values()}))
            found = loss.measure(self.bundle, manifest)
        self._report(lifts, before, found)
        return dataclasses.replace(manifest, fidelity=self._fidelity(lifts, before, found, int(samples.text.sum())))

    def _layers(self, sampler: Sampler) -> list[Layer]:
        """Every layer that can be lifted, measured."""
        plan = sampler.plan
        ladders = {weight: (name, *get_format(name).finer) for weight, name in plan.graphs["decoder"].held.items()}
        formats = {weight: names for weight, names in ladders.items() if len(names) > 1}
        found = Sensitivity(
            model=sampler.model,
            samples=sampler.take(MEASURED),
            rows=plan.graphs["decoder"].rows,
            formats=formats,
            spool=self.spool,
            advance=lambda done, total: self.progress("measuring layers", done, total),
        )
        found.measure()
        return [_layer(plan, weight, names, found) for weight, names in formats.items()]

    def _choose(self, layers: list[Layer], lifts: Mapping[str, Lift], found: float) -> dict[str, Lift]:
        """What to lift, all rounds together, once the costs are in proportion to what was measured."""
        foreseen = sum(layer.costs[_level(layer, lifts)] for layer in layers)
        scale = foreseen / found if math.isfinite(found) and found > 0 else 1.0
        chosen = choose(layers, self.most * CAUTION * scale)
        return {lift.weight: lift for lift in chosen}

    def _report(self, lifts: Mapping[str, Lift], before: float, found: float) -> None:
        logger.info("KL from PyTorch's next token: %.4f before layers were lifted, %.4f after", before, found)
        for lift in lifts.values():
            logger.info("lifted %s from %s to %s: %+d bytes", lift.weight, lift.before, lift.after, lift.added)
        if found > self.most:
            logger.warning("KL from PyTorch's next token is %.4f: lifting layers does not reach %g", found, self.most)

    def _fidelity(self, lifts: Mapping[str, Lift], before: float, found: float, positions: int) -> Fidelity:
        lifted = tuple(LiftedLayer(one.weight, one.before, one.after, one.added) for one in lifts.values())
        before, found = (min(value, LARGEST) for value in (before, found))
        return Fidelity(self.most, before, found, positions, lifted)


def _layer(plan: ExportPlan, weight: str, formats: tuple[str, ...], found: Sensitivity) -> Layer:
    rows, columns = plan.weights.tensors[weight].shape
    return Layer(
        weight=weight,
        group=found.groups.get(weight, weight),
        elements=rows * columns,
        formats=formats,
        costs=tuple(found.costs[weight][name] for name in formats),
        sizes=tuple(get_format(name).pack(weight, (rows, columns)).nbytes for name in formats),
    )


def _level(layer: Layer, lifts: Mapping[str, Lift]) -> int:
    lift = lifts.get(layer.weight)
    return 0 if lift is None else layer.formats.index(lift.after)
