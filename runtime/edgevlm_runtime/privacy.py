"""Nothing is reported to anybody: the switches of the libraries that would, set before these are imported.

onnxruntime sends its maker a device id, the program's path and what the machine is, from about ten seconds after the
import; huggingface_hub adds the versions of what is installed to a download. Both read the environment once.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime and onnxruntime-gpu
    "ORT_GENAI_TELEMETRY_DISABLED": "1",  # onnxruntime-genai, which the benchmarks measure
    "RAY_USAGE_STATS_ENABLED": "0",  # ray, which `edgevlm map --ray` uses
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, and transformers by it
}
"""Environment variable to the value that switches reports off."""


def switch_reports_off(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set every switch that `environment` does not have: what the user has set stays."""
    for name, value in SWITCHES.items():
        environment.setdefault(name, value)
