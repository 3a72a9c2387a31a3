"""The temperature that makes probabilities of choices mean what they say, fitted on questions with known answers.

`edgevlm eval --fit-calibration` writes it beside the bundle, `inspector-int8.calibration.json` for `inspector-int8/`:
the bundle itself stays as the exporter wrote it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.reading import read_json
from edgevlm_runtime.saving import write_atomic

SUFFIX = ".calibration.json"


@dataclass(frozen=True, slots=True)
class TemperatureFit:
    """What was fitted, on what, and what it changed."""

    bundle: str
    """`Bundle.content_digest` of the bundle it was fitted for."""
    temperature: float
    dataset: str
    n: int
    """Questions it was fitted on."""
    ece_before: float
    """Expected calibration error on those questions, at temperature 1."""
    ece_after: float


def fit_path(bundle: str | os.PathLike[str]) -> Path:
    """Where the temperature fitted for the bundle in this folder lies."""
    folder = Path(bundle).resolve()
    return folder.with_name(folder.name + SUFFIX)


def read_fit(bundle: Bundle) -> TemperatureFit | None:
    """What was fitted for the bundle, None when nothing was.

    Raises `EdgeVLMError` when the file is damaged or was fitted for another bundle.
    """
    path = fit_path(bundle.path)
    again = "fit it again with `edgevlm eval --fit-calibration`, or remove the file"
    try:
        found = read_json(path, TemperatureFit, "temperature fit", remedy=again)
    except FileNotFoundError:
        return None
    if found.bundle != bundle.content_digest:
        raise EdgeVLMError(f"{path} was fitted for another bundle: {again}")
    if not 0 < found.temperature < float("inf"):
        raise EdgeVLMError(f"{path} has a bad temperature {found.temperature}: {again}")
    return found


def write_fit(bundle: Bundle, fit: TemperatureFit) -> Path:
    """Write it beside the bundle; returns where. Raises `EdgeVLMError`."""
    path = fit_path(bundle.path)
    write_atomic(path, msgspec.json.format(msgspec.json.encode(fit), indent=2) + b"\n")
    return path
