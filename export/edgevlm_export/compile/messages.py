"""What the builder says of memory: how much an engine will need, and whether there was too little to build it."""

from __future__ import annotations

import re

_FIGURES = {
    "device_memory_bytes": re.compile(r"Total Activation Memory: (\d+) bytes"),
    "weight_bytes": re.compile(r"Total Weights Memory: (\d+) bytes"),
}
_TOO_LITTLE = re.compile(r"out of memory|OutOfMemory|bad_alloc|cannot allocate|insufficient memory", re.IGNORECASE)


class MemoryFigures:
    """Sees every message of a build; an engine cannot be asked itself where there is no GPU."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}
        self.too_little = False

    def __call__(self, message: str) -> None:
        """One message, on one line."""
        self.too_little |= bool(_TOO_LITTLE.search(message))
        for name, pattern in _FIGURES.items():
            if match := pattern.search(message):
                self.found[name] = max(int(match[1]), self.found.get(name, 0))  # said once a profile
