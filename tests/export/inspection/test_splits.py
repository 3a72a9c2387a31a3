"""Splits never overlap, and codes that training must not see are not in it."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevlm_export import inspection
from edgevlm_export.inspection.parts import CODE_LETTERS
from edgevlm_export.inspection.splits import held_out

CODES = [f"{letter}{number:02d}" for letter in CODE_LETTERS for number in range(100)]


def test_seed_ranges_are_disjoint() -> None:
    for one, other in combinations(inspection.SPLITS.values(), 2):
        assert max(one.start, other.start) >= min(one.stop, other.stop)


@given(st.sampled_from(sorted(inspection.SPLITS)), st.data())
def test_every_seed_belongs_to_its_split(split: str, data: st.DataObject) -> None:
    members = inspection.seeds(split)
    seed = data.draw(st.integers(members.start, members.stop - 1))
    assert inspection.split_of(seed) == split


@pytest.mark.parametrize("seed", [-1, 102_000_000])
def test_seeds_outside_the_splits_are_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="belongs to no split"):
        inspection.part(seed)


def test_one_code_in_ten_is_held_out() -> None:
    assert sum(map(held_out, CODES)) == len(CODES) // 10


def test_training_never_sees_a_held_out_code() -> None:
    labelled = [part for seed in range(3000) if (part := inspection.part(seed)).code]
    assert labelled
    assert not any(held_out(part.code) for part in labelled if part.code)


def test_the_test_split_has_held_out_codes() -> None:
    codes = [inspection.part(seed).code for seed in inspection.seeds("test")[:2000]]
    printed = [code for code in codes if code]
    assert 0.07 < sum(map(held_out, printed)) / len(printed) < 0.13
