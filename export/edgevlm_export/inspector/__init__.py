"""`inspector`: the small LLaVA that ships with the project, its weights, its training and its evaluation.

Importing this package imports neither torch nor transformers.
"""

from edgevlm_export.checkpoints.aliases import checkpoint_path

__all__ = ["checkpoint_path"]
