"""No switch of an image processor is passed over: what changes transformers' pixels changes ours, or is refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import PreTrainedConfig
from transformers.image_utils import SizeDict

from edgevlm_export.checkpoints.checkpoint import load_config
from edgevlm_export.families.normalization import Normalization
from edgevlm_export.preprocessing import CheckpointProcessor, load_processor, translate
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.images import make_processor
from tests.export.parity.test_parity import CASES

FAMILIES = {name.split("-")[0]: name for name in reversed(CASES)}
"""Each with its first configuration."""
SMALL = SizeDict(height=20, width=20)
SWITCHES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no resize": {"do_resize": False},
    "no rescale": {"do_rescale": False},
    "another factor": {"rescale_factor": 0.5},
    "no normalization": {"do_normalize": False},
    "normalization": {"do_normalize": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.25, 0.3]},
    "crop": {"do_center_crop": True, "crop_size": SMALL},
    "no crop": {"do_center_crop": False},
    "padding": {"do_pad": True},
    "no padding": {"do_pad": False},
    "nearest neighbour": {"resample": 0},
    "no conversion": {"do_convert_rgb": False},
    "no splitting": {"do_image_splitting": False},
    "pan and scan": {"do_pan_and_scan": True},
    "another size": {"size": SMALL},
}
AS_CALLED = {"internvl": {"crop_to_patches": True}}
"""What a joint processor calls its image processor with."""
Loaded = tuple[str, CheckpointProcessor, PreTrainedConfig]


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = CASES[FAMILIES[request.param]](tmp_path_factory.mktemp("switches") / request.param)
    config = load_config(folder)
    return request.param, load_processor(folder, config), config


def picture() -> Image.Image:
    """Of no size that a tiny checkpoint takes as it is."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 131, 3), dtype=np.uint8))


def theirs(family: str, source: Any) -> list[Any]:
    return [np.asarray(source(images=picture(), return_tensors="np", **AS_CALLED.get(family, {}))["pixel_values"])]


def ours(parts: CheckpointProcessor, config: PreTrainedConfig) -> list[Any]:
    prepared = make_processor(translate(parts, config).image)(picture())
    return [*prepared.feeds.values(), Normalization.of(parts.image_processor), prepared.placeholder]


def same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))


@pytest.mark.parametrize("switch", SWITCHES)
def test_no_switch_is_passed_over(loaded: Loaded, switch: str) -> None:
    family, parts, config = loaded
    changed = replace(parts, image_processor=copy.deepcopy(parts.image_processor))
    for name, value in SWITCHES[switch].items():
        setattr(changed.image_processor, name, value)
    try:
        found = ours(changed, config)
    except EdgeVLMError:
        assert switch != "as it is"
        return
    wanted = theirs(family, changed.image_processor)
    assert same(found, ours(parts, config)) == same(wanted, theirs(family, parts.image_processor))
