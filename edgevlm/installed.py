"""A missing package, said as the line that installs it.

with installed("camera"):
    import paho.mqtt.client
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.installing import pip_install


@contextmanager
def installed(extra: str) -> Iterator[None]:
    """Imports of what `edgevlm[extra]` brings. Raises `EdgeVLMError` with the line that installs it."""
    try:
        yield
    except ImportError as error:
        missing = (error.name or str(error)).partition(".")[0]
        raise EdgeVLMError(f"{missing} is not installed: {pip_install(f'edgevlm[{extra}]')}") from error
