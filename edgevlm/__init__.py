"""Vision-language models on small machines: `edgevlm.load(bundle)` answers questions about images.

The names are those of `edgevlm_runtime`, which a device can import alone. They are looked up on first use, so that
`import edgevlm` costs nothing and the command line starts quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgevlm_runtime import *  # noqa: F403

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    import edgevlm_runtime

    if name in edgevlm_runtime.__all__:
        return getattr(edgevlm_runtime, name)
    raise AttributeError(f"module 'edgevlm' has no attribute {name!r}")


def __dir__() -> list[str]:
    import edgevlm_runtime

    return sorted({*globals(), *edgevlm_runtime.__all__})
