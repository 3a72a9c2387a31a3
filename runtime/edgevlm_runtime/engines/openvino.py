"""OpenVINO: vision encoder and projector on Intel's engine, from the bundle's own graphs.

--engine vision_encoder=openvino --engine projector=openvino          the processor, in float32
--engine vision_encoder=openvino:bf16                                 in bfloat16, where the processor has it
--engine vision_encoder=openvino:GPU:f16                              on an Intel GPU
"""

from __future__ import annotations

from edgevlm_runtime.engines.intel.engine import OpenVINOEngine
from edgevlm_runtime.options import RuntimeOptions


def make_engine(options: RuntimeOptions) -> OpenVINOEngine:
    """Raises `ProviderError` where the library or the device is missing, or a word is unknown."""
    return OpenVINOEngine.make(options)
