"""Exports a vision-language checkpoint to an edgevlm bundle. Importing this package does not import torch."""

from edgevlm_runtime.privacy import switch_reports_off

__version__ = "0.1.0"

switch_reports_off()  # before anything here imports huggingface_hub, which reads the environment once
