"""Exports a vision-language checkpoint to an edgevlm bundle. Importing this package does not import torch."""

__version__ = "0.1.0"
