"""What a decoder graph is told about its cache at each run, by the kind the manifest names (`StepInputs.kind`).

A kind is a file in this package with a class `Inputs`.
"""

from __future__ import annotations

from importlib import import_module

from edgevlm_runtime.bundle.manifest import StepInputs
from edgevlm_runtime.decoding.step_inputs.base import CacheInputs
from edgevlm_runtime.errors import BundleError

KINDS = ("in_place", "static")

__all__ = ["KINDS", "CacheInputs", "make_step_inputs"]


def make_step_inputs(info: StepInputs, cache_rows: int | None) -> CacheInputs:
    """The inputs that `info` names. `cache_rows`: the cache's length where the graph fixes it.

    Raises `BundleError` for a kind that this runtime does not know, or a graph that is not of this kind.
    """
    if info.kind not in KINDS:
        raise BundleError(f"unknown decoder inputs in the bundle: '{info.kind}': upgrade edgevlm-runtime")
    made: CacheInputs = import_module(f"{__name__}.{info.kind}").Inputs(info, cache_rows)
    return made
