"""The checkpoint's generation config, reduced to what the runtime uses."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig

from edgevlm_runtime.bundle.manifest import GenerationDefaults
from edgevlm_runtime.errors import CheckpointError, reason

logger = logging.getLogger(__name__)

NOT_TAKEN = (
    "no_repeat_ngram_size",
    "bad_words_ids",
    "min_new_tokens",
    "begin_suppress_tokens",
    "forced_eos_token_id",
    "sequence_bias",
    "num_beams",
)
"""Settings that would change greedy tokens and that the runtime does not have: named in a warning."""


def generation_defaults(folder: Path, config: PreTrainedConfig) -> GenerationDefaults:
    """End-of-sequence tokens, repetition penalty, suppressed tokens and the limit of new tokens.

    Answers are greedy unless the caller samples: a device that inspects parts must give the same verdict twice.
    Sampling parameters of the checkpoint are therefore not taken over. Raises `CheckpointError` for a file that cannot
    be read or holds what means nothing.
    """
    generation = _load(folder, config)
    dropped = [name for name in NOT_TAKEN if getattr(generation, name, None) not in (None, 0, 1, [], {})]
    if dropped:
        logger.warning("the checkpoint's generation config sets what edgevlm does not do: %s", ", ".join(dropped))
    try:
        return _defaults(generation, config)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"unusable generation config: {folder}: {reason(error)}") from error


def _defaults(generation: GenerationConfig, config: PreTrainedConfig) -> GenerationDefaults:
    eos = _ids(generation.eos_token_id)
    for fallback in (config, config.get_text_config()):
        eos = eos or _ids(getattr(fallback, "eos_token_id", None))
    penalty = float(generation.repetition_penalty or 1.0)
    if penalty <= 0:
        raise ValueError(f"repetition_penalty is {penalty}")
    limit = {} if generation.max_new_tokens is None else {"max_new_tokens": int(generation.max_new_tokens)}
    return GenerationDefaults(eos, penalty, suppress_tokens=_ids(generation.suppress_tokens), **limit)


def _load(folder: Path, config: PreTrainedConfig) -> GenerationConfig:
    if not (folder / "generation_config.json").is_file():
        return GenerationConfig.from_model_config(config)
    try:
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers validates with several exception types
        raise CheckpointError(f"unreadable generation config: {folder}: {reason(error)}") from error


def _ids(value: Any) -> tuple[int, ...]:
    """Token ids, given as one or several. Raises `TypeError` for anything else."""
    if value is None:
        return ()
    several = [value] if isinstance(value, int) else list(value)
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in several):
        raise TypeError(f"not token ids: {value!r}")
    return tuple(several)
