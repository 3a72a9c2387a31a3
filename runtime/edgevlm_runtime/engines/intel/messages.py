"""What OpenVINO says when it cannot load a graph, as one line that names the operators."""

from __future__ import annotations

import re

from edgevlm_runtime.errors import reason

_LISTS = (
    re.compile(r"No conversion rule found for operations?: ([^\n]+)"),
    re.compile(r"Conversion is failed for: ([^\n]+)"),
)
"""How its summary begins: operators that it does not know, and those that it knows otherwise."""
_SOURCE = re.compile(r"(Exception from |Check '.*' failed at )\S+:\d+:?")


def missing_operators(error: Exception) -> tuple[str, ...]:
    """Names of the operators that it cannot convert; none where that is not what it complains of."""
    found = [name.strip() for pattern in _LISTS for match in pattern.findall(str(error)) for name in match.split(",")]
    return tuple(dict.fromkeys(name for name in found if name))


def said(error: Exception) -> str:
    """The complaint itself: lines that name its own source files are left out."""
    lines = (_SOURCE.sub("", line).strip() for line in str(error).splitlines())
    return reason(RuntimeError(" ".join(line for line in lines if line) or type(error).__name__))
