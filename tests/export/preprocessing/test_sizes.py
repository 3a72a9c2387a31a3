"""The size arithmetic alone, over sizes too large to resize in a test."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers.image_transforms import get_size_with_aspect_ratio
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.models.smolvlm import image_processing_pil_smolvlm as smolvlm

from edgevlm_runtime.errors import ImageError
from edgevlm_runtime.images.kinds import fixed, native, tiles

SIDE = st.one_of(
    st.integers(1, 20_000), st.integers(1, 60).map(lambda k: k * 28), st.integers(1, 40).map(lambda k: k * 512)
)
MANY = settings(max_examples=400, deadline=None)


@MANY
@given(width=SIDE, height=SIDE, patch=st.sampled_from([14, 16]), tokens=st.integers(4, 1280))
@example(width=2600, height=13, patch=14, tokens=1280)
@example(width=14, height=42, patch=14, tokens=1280)
def test_native(width: int, height: int, patch: int, tokens: int) -> None:
    factor = 2 * patch
    options = native.Options(image_token="", patch_size=patch, min_pixels=4 * factor**2, max_pixels=tokens * factor**2)
    try:
        expected = smart_resize(height, width, factor, options.min_pixels, options.max_pixels)
    except ValueError:
        with pytest.raises(ImageError, match="too thin"):
            native._smart_size(width, height, options)
        return
    assert native._smart_size(width, height, options) == expected[::-1]


@MANY
@given(width=SIDE, height=SIDE, longest=st.sampled_from([1456, 2048, 1536, 5000, 101]))
def test_tiles_first_resize(width: int, height: int, longest: int) -> None:
    expected = smolvlm._resize_output_size_rescale_to_max_len(height, width, max_len=longest)
    size = tiles._long_edge_to(width, height, longest)
    assert size == expected[::-1]
    expected = smolvlm._resize_output_size_scale_below_upper_bound(*expected, max_len=4096)
    assert tiles._below(*size, 4096) == expected[::-1]


@MANY
@given(width=SIDE, height=SIDE, shortest=st.sampled_from([224, 336, 57]), longest=st.sampled_from([336, 400, 1333]))
@example(width=10, height=5, shortest=57, longest=90)
def test_fixed_bounded(width: int, height: int, shortest: int, longest: int) -> None:
    expected = get_size_with_aspect_ratio((height, width), shortest, longest)
    assert fixed._bounded(width, height, shortest, longest) == expected[::-1]
