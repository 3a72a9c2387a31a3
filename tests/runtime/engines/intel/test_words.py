"""What may follow the name `openvino`."""

from __future__ import annotations

import pytest

from edgevlm_runtime.engines.intel.words import Target
from edgevlm_runtime.errors import ProviderError


@pytest.mark.parametrize(
    ("words", "target"),
    [
        ((), Target("CPU", "f32")),
        (("bf16",), Target("CPU", "bf16")),
        (("gpu", "F16"), Target("GPU", "f16")),
        (("f16", "GPU.1"), Target("GPU.1", "f16")),
        (("NPU",), Target("NPU", "f32")),
    ],
)
def test_devices_and_precisions(words: tuple[str, ...], target: Target) -> None:
    assert Target.parse(words) == target
    assert Target.parse([word for word in str(target).split(":") if word]) == target


@pytest.mark.parametrize("words", [("fast",), ("",), ("CPU", "GPU"), ("f16", "bf16"), ("GPUS",)])
def test_other_words(words: tuple[str, ...]) -> None:
    with pytest.raises(ProviderError, match=r"^openvino:"):
        Target.parse(words)
