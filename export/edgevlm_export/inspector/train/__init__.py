"""The training of `inspector`: ``python -m edgevlm_export.inspector.train --out DIR``."""
