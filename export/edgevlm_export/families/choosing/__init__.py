"""Which of an image's tokens are kept where an export is asked for fewer: one file per method, found by its name.

    method = get_method("diverse")
    places = method.choose(rows, scores, 144)          # int64 [images, 144], ascending

No method looks at the question, so that the embeddings of an image can be kept and used for every question about it.
Rows are kept as they are and in their order: a decoder gives them consecutive positions, as it would all of them.
"""

from __future__ import annotations

from edgevlm_export.families.choosing.base import Method
from edgevlm_runtime.errors import ExportError
from edgevlm_runtime.registry import Registry

METHODS = Registry(
    "unknown choice of image tokens",
    {name: f"{__name__}.{name}:METHOD" for name in ("diverse", "attention", "random")},
    ExportError,
)
"""By name."""


def get_method(name: str) -> Method:
    """The method of that name. Raises `ExportError`, naming those there are."""
    method: Method = METHODS.get(name)
    return method
