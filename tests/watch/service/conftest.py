"""A tiny bundle, loaded once."""

from pathlib import Path

import pytest

import edgevlm_runtime


@pytest.fixture(scope="session")
def tiny(tiny_bundle: Path) -> edgevlm_runtime.VLM:
    return edgevlm_runtime.load(tiny_bundle)
