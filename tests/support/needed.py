"""Programs that the tests of the camera need: skipped where one is missing, a failure where it has to be there."""

from __future__ import annotations

import os
import shutil

import pytest

REQUIRED = "EDGEVLM_CAMERA_REQUIRED"
"""Set where a missing program is a failure: CI."""


def program(name: str, package: str) -> str:
    """Its path. Skips the test, saying which Debian package has it."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
    if found is None:
        if os.environ.get(REQUIRED):
            pytest.fail(f"{name} is not here, and {REQUIRED} is set")
        pytest.skip(f"{name} is not here: install {package}")
    return found
