"""What is made once in a run of the tests, by whichever worker or child comes first, in one folder that all share.

The folder lives as long as the run: nothing in it is older than the code that is tested.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

_VARIABLE = "EDGEVLM_TESTS_SHARED"
"""Workers and children find the folder by it."""


def begin() -> Path | None:
    """Make the folder; whoever is given one removes it by `end`. None where the run has made it already."""
    if _VARIABLE in os.environ:
        return None
    os.environ[_VARIABLE] = tempfile.mkdtemp(prefix="edgevlm-tests-")
    return folder()


def end(made: Path) -> None:
    """The run is over."""
    del os.environ[_VARIABLE]
    shutil.rmtree(made, ignore_errors=True)


def folder() -> Path:
    """What all of the run share."""
    return Path(os.environ[_VARIABLE])


def alone(name: str) -> FileLock:
    """Held by one at a time."""
    return FileLock(folder() / f"{name}.lock")


def once(name: str, make: Callable[[Path], object]) -> Path:
    """The file or folder `name`, to be read only: `make(path)` makes it for the first who asks, and others wait."""
    place = folder() / name
    with alone(name):
        if not place.exists():
            partial = place.with_name(f"{name}.partial")
            make(partial)
            partial.rename(place)
    return place
