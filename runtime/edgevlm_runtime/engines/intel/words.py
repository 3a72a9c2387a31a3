"""What may follow the name `openvino`: a device, and what it computes in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgevlm_runtime.errors import ProviderError

PRECISIONS = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
"""Our word (and the plugin's `INFERENCE_PRECISION_HINT`) to the name it has among a device's capabilities."""
DEFAULT_DEVICE = "CPU"
DEFAULT_PRECISION = "f32"
"""Not the plugin's own default, which is bfloat16 wherever the processor has it."""
_DEVICE = re.compile(r"(CPU|GPU|NPU)(\.\d+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how a graph is computed."""

    device: str = DEFAULT_DEVICE
    """As OpenVINO calls it."""
    precision: str = DEFAULT_PRECISION
    """A key of `PRECISIONS`."""

    @classmethod
    def parse(cls, words: Sequence[str]) -> Target:
        """Raises `ProviderError` for a word that is neither, or a second one."""
        found: dict[str, str] = {}
        for word in words:
            if word.lower() in PRECISIONS:
                kind, value = "precision", word.lower()
            elif _DEVICE.fullmatch(word):
                kind, value = "device", word.upper()
            else:
                raise ProviderError(
                    f"openvino:{word}: neither a device (CPU, GPU, NPU) nor a precision ({', '.join(PRECISIONS)})"
                )
            if kind in found:
                raise ProviderError(f"openvino:{':'.join(words)}: two words for the {kind}: give one")
            found[kind] = value
        return cls(**found)

    def __str__(self) -> str:
        """The shortest words."""
        own = [self.device] if self.device != DEFAULT_DEVICE else []
        own += [self.precision] if self.precision != DEFAULT_PRECISION else []
        return "".join(f":{word}" for word in own)
