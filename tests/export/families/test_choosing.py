"""Ways to choose image tokens, as functions of tensors; the graphs are in tests/export/parity/test_fewer_tokens.py."""

from __future__ import annotations

import pytest
import torch

from edgevlm_export.families.choosing import METHODS, get_method
from edgevlm_export.families.choosing.base import ascending, keep
from edgevlm_export.families.choosing.random import places
from edgevlm_runtime.errors import ExportError


@pytest.mark.parametrize("name", [*METHODS])
@pytest.mark.parametrize("number", [1, 5, 12])
def test_places_are_different_ascending_and_as_many_as_asked(name: str, number: int) -> None:
    torch.manual_seed(0)
    rows, scores = torch.randn(3, 12, 8), torch.randn(3, 12)
    found = get_method(name).choose(rows, scores, number).expand(3, -1)
    assert found.shape == (3, number)
    for image in found.tolist():
        assert image == sorted(set(image))
        assert 0 <= image[0] <= image[-1] < 12
    kept = keep(rows, found)
    for image, chosen in enumerate(found.tolist()):
        assert torch.equal(kept[image], rows[image, chosen])


def test_equal_tokens_are_taken_once_before_any_twice() -> None:
    """Twelve tokens of three sorts: three are one of each."""
    sorts = torch.eye(4)[:3]
    rows = sorts[torch.arange(12) % 3][None]
    (found,) = get_method("diverse").choose(rows, None, 3).tolist()
    assert {place % 3 for place in found} == {0, 1, 2}


def test_the_most_attended_stay() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.3, 0.8], [0.5, 0.1, 0.2, 0.6]])
    assert get_method("attention").choose(torch.zeros(2, 4, 1), scores, 2).tolist() == [[1, 3], [0, 3]]


def test_random_places_are_the_same_every_time_and_others_for_another_seed() -> None:
    assert places(100, 20) == places(100, 20) != places(100, 20, seed=1)


def test_large_places_keep_their_order() -> None:
    """Of a picture of 4096 tokens, and far beyond."""
    some = torch.tensor([[70_001, 3, 70_000, 4095]])
    assert ascending(some).tolist() == [[3, 4095, 70_000, 70_001]]


def test_an_unknown_method_is_one_line() -> None:
    with pytest.raises(ExportError, match=r"^unknown choice of image tokens: best: known are diverse, attention, ran"):
        get_method("best")
