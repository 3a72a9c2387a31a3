"""The version of edgevlm-runtime, which bundles compare with their `min_runtime_version`."""

__version__ = "0.1.0"
