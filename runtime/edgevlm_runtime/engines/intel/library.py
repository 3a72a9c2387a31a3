"""openvino: this is the only place that imports it, and its reports are off.

Importing `openvino` alone tells its maker, by the package `openvino-telemetry`, which no variable switches off. Where
that cannot be imported it does without, so for the time of the import it cannot be.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgevlm_runtime.errors import ProviderError
from edgevlm_runtime.installing import pip_install

_REPORTS = "openvino_telemetry"


@contextmanager
def _without_reports() -> Iterator[None]:
    """Within, the package that reports cannot be imported; afterwards a program may, as before."""
    before = sys.modules.get(_REPORTS)
    sys.modules[_REPORTS] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop(_REPORTS, None)
        if before is not None:
            sys.modules[_REPORTS] = before


def import_openvino() -> Any:
    """The module. Raises `ProviderError` with the line that installs it, or why what is installed does not load."""
    try:
        with _without_reports():
            import openvino
    except ModuleNotFoundError as error:
        if error.name != "openvino":
            raise ProviderError(f"openvino needs the package {error.name}: {_install()}") from error
        raise ProviderError(f"openvino is not installed: {_install()}") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise ProviderError(f"openvino is installed and does not load: {' '.join(str(error).split())}") from error
    return openvino


def version(openvino: Any) -> str:
    """Its release: "2026.4.1" of "2026.4.1-22982-...'."""
    return str(openvino.__version__).partition("-")[0]


def _install() -> str:
    return pip_install("edgevlm-runtime[openvino]")
