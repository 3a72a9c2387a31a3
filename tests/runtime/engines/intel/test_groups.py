"""The group in which a graph's products are quantized: the one that takes the least time for all of them."""

from __future__ import annotations

import pytest

from edgevlm_runtime.engines.intel.groups import best_group


@pytest.mark.parametrize(
    ("products", "group"),
    [
        ([], 128),
        ([(1024, 4096), (4096, 1024)], 128),
        ([(960, 2560), (2560, 960)], 64),
        ([(960, 960), (2560, 2560)], 64),
        ([(64, 64), (2560, 2560)], 128),
        ([(1120, 1120), (588, 64)], 32),
        ([(1152, 4304), (4304, 1152)], 128),
    ],
)
def test_most_of_the_work_counts(products: list[tuple[int, int]], group: int) -> None:
    assert best_group(products) == group
