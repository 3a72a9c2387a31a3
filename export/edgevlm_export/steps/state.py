"""An export on its way: the state that one step hands to the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from edgevlm_export.planning.plan import ExportPlan, Progress
from edgevlm_export.precision.kv_cache import Scales
from edgevlm_export.proof.certificate import Measured
from edgevlm_export.steps.options import ExportOptions
from edgevlm_export.streaming.material import Material
from edgevlm_export.streaming.spool import Spool
from edgevlm_export.writing.output import Place
from edgevlm_runtime.bundle.manifest import Manifest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Prefix:
    """What prompts begin with."""

    token_ids: tuple[int, ...] = ()
    layers: tuple[tuple[Tensor, Tensor], ...] = ()
    """Keys (rotated) and values of each layer, float32 [kv_heads, tokens, head_dim]; none until they are computed."""


@dataclass(frozen=True)
class State:
    """What was asked for, and what the steps so far have made of it."""

    options: ExportOptions
    place: Place
    """Where the bundle is made, held against other writers."""
    tell: Progress
    """Told what a step is at, as "STEP: STAGE"."""
    checkpoint: Path = Path()
    """The checkpoint's folder."""
    material: Material = field(default_factory=Material)
    """What to calibrate and measure with."""
    scratch: Path = Path()
    """A folder beside the bundle's, gone when the export ends."""
    prefix: Prefix = field(default_factory=Prefix)
    """What every prompt begins with."""
    scales: Mapping[int, Scales] = field(default_factory=dict)
    """Of a KV cache in int8, by layer."""
    planned: ExportPlan | None = None
    written: Manifest | None = None
    measured: Measured | None = None
    """The comparison with PyTorch; None where none is wanted."""
    step: str = ""
    """The name of the step that runs."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """What the steps before it took."""

    @property
    def plan(self) -> ExportPlan:
        """The planned export."""
        return _made(self.planned, "plan")

    @property
    def manifest(self) -> Manifest:
        """Of the bundle as it is in `folder` now."""
        return _made(self.written, "manifest")

    @property
    def folder(self) -> Path:
        """Where the bundle's files are until it is whole."""
        return self.place.partial

    @property
    def spool(self) -> Spool:
        """Weights that calibration has rounded."""
        return Spool(self.scratch)

    def progress(self, stage: str, done: int, total: int) -> None:
        """See `Progress`: `done` of `total` parts of a stage of this step."""
        self.tell(f"{self.step}: {stage}", done, total)


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of an export's list."""

    name: str
    run: Callable[[State], State]


def run(steps: Iterable[Step], state: State) -> State:
    """Take `state` through `steps`, one after another."""
    for step in steps:
        begun = time.monotonic()
        state = step.run(replace(state, step=step.name))
        state = replace(state, seconds={**state.seconds, step.name: time.monotonic() - begun})
    return state


def _made(value: T | None, what: str) -> T:
    if value is None:
        raise RuntimeError(f"no step before this one has made the {what}")
    return value
