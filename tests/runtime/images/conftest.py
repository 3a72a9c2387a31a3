"""What the tests of pictures share."""

from __future__ import annotations

import pytest

from edgevlm_runtime.images import notices


@pytest.fixture(autouse=True)
def nothing_told() -> None:
    """Each test hears what is said once."""
    notices.forget()
