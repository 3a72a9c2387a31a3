"""What every test of the exporter shares."""

from __future__ import annotations

import pytest

from tests.support import traces


@pytest.fixture(scope="session", autouse=True)
def _traces_once() -> None:
    """Each kind of graph is traced once per worker."""
    traces.remember()
