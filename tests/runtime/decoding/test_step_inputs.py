"""What a decoder graph is told about its cache, against the definition of causal attention, slot by slot."""

from __future__ import annotations

import numpy as np
import pytest

from edgevlm_runtime.bundle.manifest import StepInputs
from edgevlm_runtime.decoding.step_inputs import make_step_inputs
from edgevlm_runtime.errors import BundleError

ROWS = 12
STATIC = StepInputs("static", {"attention_mask": 0, "attention_mask_window_3": 3})


@pytest.mark.parametrize(("past", "count"), [(0, 5), (4, 3), (11, 1), (0, ROWS)])
def test_static(past, count):
    feeds = make_step_inputs(STATIC, ROWS).feeds(past, count)
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
    feeds = make_step_inputs(StepInputs(), None).feeds(7, 3)
    assert feeds["seqlens_k"].tolist() == [9]
    assert feeds["total_sequence_length"].shape == ()
    assert int(feeds["total_sequence_length"]) == 10
    assert {array.dtype for array in feeds.values()} == {np.dtype(np.int32)}


def test_what_is_refused():
    with pytest.raises(BundleError, match="unknown decoder inputs in the bundle: 'later': upgrade"):
        make_step_inputs(StepInputs("later"), None)
    with pytest.raises(BundleError, match="fixes no cache length"):
        make_step_inputs(STATIC, None)
