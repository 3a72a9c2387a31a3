"""`inspector` in int8, loaded once."""

from __future__ import annotations

import pytest

import edgevlm_runtime
from edgevlm_export.inspector import checkpoint_path


@pytest.fixture(scope="session")
def inspector(export_bundle) -> edgevlm_runtime.VLM:
    return edgevlm_runtime.load(export_bundle(checkpoint_path(), precision="int8"))
