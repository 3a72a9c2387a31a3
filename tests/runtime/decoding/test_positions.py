"""Position schemes: consistent under any cut of the sequence, and M-RoPE equal to transformers'."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevlm_runtime.decoding.positions import make_positions
from edgevlm_runtime.errors import BundleError, PromptError
from edgevlm_runtime.text.layout import ImageSpan, ImageSpans

GRIDS = st.tuples(st.integers(1, 6), st.integers(1, 6))
PARTS = st.lists(st.tuples(st.integers(1, 5), GRIDS), min_size=0, max_size=4)
"""Text of some tokens, then an image of that grid."""


def images_of(parts: list[tuple[int, tuple[int, int]]]) -> tuple[ImageSpans, int]:
    """The image spans, and the tokens up to the end of the last image."""
    spans: list[ImageSpan] = []
    end = 0
    for index, (text, grid) in enumerate(parts):
        spans.append(ImageSpan(end + text, grid[0] * grid[1], index, 0, grid))
        end = spans[-1].stop
    return tuple(spans), end


def test_linear_feeds_nothing() -> None:
    assert make_positions("linear").feeds((), 0, 9) == {}


@pytest.mark.parametrize("name", ["base", "missing", "", "..prompt", "mrope.Positions"])
def test_unknown_schemes(name: str) -> None:
    with pytest.raises(BundleError, match="unknown position scheme"):
        make_positions(name)


def test_mrope_by_hand() -> None:
    images = (ImageSpan(2, 6, 0, 0, (2, 3)),)
    positions = make_positions("mrope").feeds(images, 0, 10)["position_ids"]
    assert positions.shape == (3, 1, 10)
    assert positions.dtype == np.int64
    assert positions[:, 0].tolist() == [
        [0, 1, 2, 2, 2, 2, 2, 2, 5, 6],
        [0, 1, 2, 2, 2, 3, 3, 3, 5, 6],
        [0, 1, 2, 3, 4, 2, 3, 4, 5, 6],
    ]


@given(parts=PARTS, cuts=st.lists(st.integers(0, 80), max_size=5), tail=st.integers(0, 7))
def test_any_cut_gives_the_same_positions(parts: list[tuple[int, tuple[int, int]]], cuts: list[int], tail: int) -> None:
    images, end = images_of(parts)
    scheme, total = make_positions("mrope"), end + tail
    whole = scheme.feeds(images, 0, total)["position_ids"]
    edges = sorted({0, total, *(cut for cut in cuts if cut < total)})
    pieces = [scheme.feeds(images, start, stop)["position_ids"] for start, stop in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=2) if pieces else whole, whole)


@pytest.fixture(scope="module")
def qwen() -> Any:
    """A tiny Qwen2.5-VL, for its `get_rope_index`."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.Qwen2_5_VLConfig(
        text_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
                     "intermediate_size": 16, "vocab_size": 32, "rope_parameters": {"rope_type": "default",
                     "mrope_section": [2, 1, 1], "rope_theta": 10000.0}},
        vision_config={"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 16},
    )  # fmt: skip
    return transformers.Qwen2_5_VLModel(config)


@given(parts=PARTS.filter(bool), tail=st.integers(0, 7), generated=st.integers(1, 4))
def test_mrope_equals_transformers(
    qwen: Any, parts: list[tuple[int, tuple[int, int]]], tail: int, generated: int
) -> None:
    import torch

    images, end = images_of(parts)
    total = end + tail
    kinds = torch.zeros(1, total, dtype=torch.int32)
    for span in images:
        kinds[0, span.start : span.stop] = 1
    grids = torch.tensor([[1, rows * 2, columns * 2] for _, (rows, columns) in parts])
    expected, delta = qwen.get_rope_index(torch.zeros(1, total, dtype=torch.long), kinds, grids)
    scheme = make_positions("mrope")
    np.testing.assert_array_equal(scheme.feeds(images, 0, total)["position_ids"], expected.numpy())
    # Decode steps of transformers: the token's number plus rope_deltas.
    step = np.arange(total, total + generated) + delta.item()
    np.testing.assert_array_equal(
        scheme.feeds(images, total, total + generated)["position_ids"], np.broadcast_to(step, (3, 1, generated))
    )


@pytest.mark.parametrize(
    "span", [ImageSpan(0, 6, 0, 0, None), ImageSpan(0, 5, 0, 0, (2, 3)), ImageSpan(0, 3, 0, 3, (2, 3))]
)
def test_images_that_are_not_their_grid(span: ImageSpan) -> None:
    with pytest.raises(PromptError, match=r"image 1 has .* not its grid"):
        make_positions("mrope").feeds((span,), 0, 9)
