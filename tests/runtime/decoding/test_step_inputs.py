"""What a decoder graph is told about its cache, against the definition of causal attention, slot by slot."""

from __future__ import annotations

import numpy as np
import pytest

from edgevlm_runtime.bundle.decoder_info import StepInputs
from edgevlm_runtime.decoding.attention import get_pattern
from edgevlm_runtime.decoding.step_inputs import make_step_inputs
from edgevlm_runtime.errors import BundleError

ROWS = 12
CAUSAL = get_pattern("causal")
STATIC = StepInputs("static", {"attention_mask": 0, "attention_mask_window_3": 3})


@pytest.mark.parametrize(("past", "count"), [(0, 5), (4, 3), (11, 1), (0, ROWS)])
def test_static(past, count):
    feeds = make_step_inputs(STATIC, ROWS, CAUSAL).feeds(past, count)
    assert feeds["write_indices"].tolist() == [past]
    assert feeds["position_ids"].tolist() == [list(range(past, past + count))]
    for name, window in STATIC.masks.items():
        assert feeds[name].shape == (1, 1, count, ROWS)
        assert feeds[name].dtype == np.bool_
        for row in range(count):
            place = past + row
            seen = [slot for slot in range(ROWS) if slot <= place and (not window or slot > place - window)]
            assert np.flatnonzero(feeds[name][0, 0, row]).tolist() == seen


def test_in_place():
    feeds = make_step_inputs(StepInputs(), None, CAUSAL).feeds(7, 3)
    assert feeds["seqlens_k"].tolist() == [9]
    assert feeds["total_sequence_length"].shape == ()
    assert int(feeds["total_sequence_length"]) == 10
    assert {feeds[name].dtype for name in ("seqlens_k", "total_sequence_length")} == {np.dtype(np.int32)}
    assert feeds["position_ids"].tolist() == [[7, 8, 9]]
    assert not any("block" in name for name in feeds)


@pytest.mark.parametrize(("past", "count"), [(0, 12), (2, 6), (3, 3), (0, 3), (6, 4), (11, 1)])
@pytest.mark.parametrize("blocks", [(), ((3, 6),), ((0, 12),), ((3, 6), (9, 10))])
@pytest.mark.parametrize("pattern", ["images", "images_in_windows", "prefix"])
def test_blocks_by_the_definition(past, count, blocks, pattern):
    """In both kinds, token by token: what is before, within the window; and one's own block, all of it or what of it is
    not before the window, in layers that have blocks."""
    pattern = get_pattern(pattern)
    total = past + count
    blocks = tuple(block for block in blocks if block[1] <= past or (block[0] >= past and block[1] <= total))

    def seen(place: int, window: int) -> list[int]:
        whole = next((set(range(*block)) for block in blocks if block[0] <= place < block[1]), set())
        if not (pattern.everywhere or window):
            whole = set()
        if pattern.windows_hold and window:
            whole = {slot for slot in whole if slot > place - window}
        return sorted(whole | {slot for slot in range(place + 1) if not window or slot > place - window})

    in_blocks = [place for place in range(past, total) if any(start <= place < stop for start, stop in blocks)]
    masks = {"block_mask": 0, "block_mask_window_3": 3}
    in_place = make_step_inputs(StepInputs("in_place", masks), None, pattern).feeds(past, count, blocks)
    static = make_step_inputs(STATIC, ROWS, pattern).feeds(past, count, blocks)
    assert in_place["block_rows"].tolist() == [place - past for place in in_blocks]
    for (name, window), whole in zip(masks.items(), STATIC.masks, strict=True):
        assert in_place[name].shape == (len(in_blocks), total if in_blocks else 0)
        assert [np.flatnonzero(row).tolist() for row in in_place[name]] == [seen(place, window) for place in in_blocks]
        rows = [np.flatnonzero(row).tolist() for row in static[whole][0, 0]]
        assert rows == [seen(place, window) for place in range(past, total)]


def test_what_is_refused():
    with pytest.raises(BundleError, match="decoder inputs in the bundle: later: known are in_place, static: upgrade"):
        make_step_inputs(StepInputs("later"), None, CAUSAL)
    with pytest.raises(BundleError, match="fixes no cache length"):
        make_step_inputs(STATIC, None, CAUSAL)
