"""What of another image size and of fewer image tokens is refused, before any weight is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgevlm_export.api import ExportOptions
from edgevlm_export.planning.plan import plan_export
from edgevlm_runtime.errors import EdgeVLMError, ExportError
from tests.support import checkpoints


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"image_tokens": 0}, "number of image tokens not possible: 0: at least 1 is needed"),
        ({"image_size": 0}, "image size not possible: 0 pixels: at least one patch is needed"),
        ({"image_token_method": "random"}, "nothing to choose: --image-token-method says how, --image-tokens how many"),
        ({"image_tokens": 2, "image_token_method": "best"}, "unknown choice of image tokens: best: known are diverse"),
    ],
)
def test_values_that_mean_nothing(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ExportError) as refused:
        ExportOptions("llava", **asked)
    assert str(refused.value).startswith(says)


def planned(folder: Path, **asked: Any) -> Any:
    options = ExportOptions(str(folder), **asked)
    return plan_export(folder, options.plan, None, lambda *_: None, images=options.images)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"image_tokens": 4}, "number of image tokens not possible: 4 of 4: ask for fewer than that"),
        ({"image_tokens": 5}, "number of image tokens not possible: 5 of 4: ask for fewer than that"),
        ({"image_size": 30}, "image size not possible: 30 pixels, patches have 14: take 28 or 42"),
        ({"image_size": 5}, "image size not possible: 5 pixels, patches have 14: take 14"),
    ],
)
def test_values_that_do_not_fit_the_model(tiny_checkpoint: Path, asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ExportError) as refused:
        planned(tiny_checkpoint, **asked)
    assert str(refused.value) == says


NOT_FEWER: dict[str, Callable[[Path], Path]] = {
    "llava_next": checkpoints.llava_next,
    "mistral3": checkpoints.mistral3,
    "qwen2_vl": checkpoints.qwen2_vl,
    "gemma3": checkpoints.gemma3,
    "lfm2_vl": checkpoints.lfm2_vl,
}
NOT_SIZED = {**NOT_FEWER, "smolvlm": checkpoints.smolvlm, "internvl": checkpoints.internvl}


@pytest.mark.parametrize("name", [*NOT_FEWER])
def test_families_whose_tokens_stand_for_places(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        EdgeVLMError, match=rf"^fewer image tokens not possible for {name}: .*leave out --image-tokens$"
    ):
        planned(NOT_FEWER[name](tmp_path / name), image_tokens=2)


@pytest.mark.parametrize("name", [*NOT_SIZED])
def test_families_without_a_size_of_their_pictures(name: str, tmp_path: Path) -> None:
    with pytest.raises(EdgeVLMError, match=rf"^image size not possible for {name}: .*leave out --image-size$"):
        planned(NOT_SIZED[name](tmp_path / name), image_size=112)


def test_a_method_that_the_tower_does_not_have(tmp_path: Path) -> None:
    folder = checkpoints.smolvlm(tmp_path / "smolvlm")
    with pytest.raises(ExportError, match=r"^choice of image tokens not possible: attention for smolvlm .*diverse, ra"):
        planned(folder, image_tokens=2, image_token_method="attention")


def test_the_plan_has_fewer_tokens_and_another_size(tiny_checkpoint: Path) -> None:
    whole, less = planned(tiny_checkpoint), planned(tiny_checkpoint, image_size=56, image_tokens=6)
    assert (whole.preprocessing.image.size, whole.preprocessing.image.fewer) == (None, None)
    image = less.preprocessing.image
    assert (image.size, image.options["tokens"], image.options["height"], image.options["width"]) == (56, 6, 56, 56)
    assert image.fewer is not None
    assert (image.fewer.kept, image.fewer.of, image.fewer.method) == (6, 16, "diverse")
    assert ExportOptions("x/llava", image_size=56, image_tokens=6).folder.name == "llava-fp32-56px-6tokens"
