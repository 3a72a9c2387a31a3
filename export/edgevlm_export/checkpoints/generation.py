"""The checkpoint's generation config, reduced to what the runtime uses, and where an answer ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig

from edgevlm_export.checkpoints import door
from edgevlm_runtime.bundle.manifest import GenerationDefaults
from edgevlm_runtime.errors import CheckpointError, reason
from edgevlm_runtime.options import PENALTIES

NOT_TAKEN = (
    "no_repeat_ngram_size",
    "bad_words_ids",
    "min_new_tokens",
    "begin_suppress_tokens",
    "forced_eos_token_id",
    "sequence_bias",
    "num_beams",
)
"""Settings that would change greedy tokens and that the runtime does not have: named in a note."""
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p")
"""Settings of sampling, which are not taken over."""


@dataclass(frozen=True, slots=True)
class Generation:
    """How a checkpoint answers, for a bundle and its reference alike."""

    defaults: GenerationDefaults
    notes: tuple[str, ...]
    """What whoever exports it should know, a line each."""


def read_generation(folder: Path, config: PreTrainedConfig, tokenizer: Any, turn_end: int | None) -> Generation:
    """End-of-sequence tokens, repetition penalty, suppressed tokens and the limit of new tokens.

    `turn_end`: the token that the chat template writes after an answer, where it writes one. Answers are greedy unless
    the caller samples: a device that inspects parts must give the same verdict twice. Sampling parameters of the
    checkpoint are therefore not taken over. Raises `CheckpointError` for a file that cannot be read or holds what means
    nothing.
    """
    generation = _load(folder)
    dropped = [name for name in NOT_TAKEN if getattr(generation, name, None) not in (None, 0, 1, [], {})]
    notes = [*_sampling_notes(generation)]
    if dropped:
        notes.append(f"the checkpoint's generation config sets what edgevlm does not do: {', '.join(dropped)}")
    try:
        stated = _ids(generation.eos_token_id)
        ends = _ends(stated, config, tokenizer, turn_end)
        defaults = _defaults(generation, tuple(ends))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"unusable generation config: {folder}: {reason(error)}") from error
    return Generation(defaults, (*notes, *_end_notes(stated, ends, tokenizer)))


def _sampling_notes(generation: GenerationConfig) -> Iterator[str]:
    """That the checkpoint's authors sample, and a bundle does not by itself."""
    if generation.do_sample:
        values = {name: getattr(generation, name, None) for name in SAMPLING}
        settings = ", ".join(f"{name} {value:g}" for name, value in values.items() if value is not None)
        yield (
            f"the checkpoint's generation config samples{f' ({settings})' if settings else ''}, the bundle does not: "
            "answers are greedy unless --temperature asks for others"
        )


def _ends(stated: tuple[int, ...], config: PreTrainedConfig, tokenizer: Any, turn_end: int | None) -> dict[int, str]:
    """Tokens that end an answer, with who says so: those of the generation config, or else of the model's config, and
    in any case the tokenizer's own and the one that the chat template writes after an answer."""
    found: list[tuple[int | None, str]] = [
        (id_, "the generation config") for id_ in stated or _of_config(config, tokenizer)
    ]
    found.append((tokenizer.eos_token_id, "the tokenizer"))
    found.append((turn_end, "the chat template"))
    rows, named = int(config.get_text_config().vocab_size), dict[int, str]()
    for id_, source in found:
        if id_ is not None and 0 <= id_ < rows:
            named.setdefault(int(id_), source)
    return named


def _of_config(config: PreTrainedConfig, tokenizer: Any) -> tuple[int, ...]:
    """End tokens of the model's config. One that its class assumes, and that is a word to this tokenizer, is none."""
    ids = next(
        filter(None, (_ids(getattr(one, "eos_token_id", None)) for one in (config, config.get_text_config()))), ()
    )
    return tuple(id_ for id_ in ids if id_ in tokenizer.added_tokens_decoder)


def _end_notes(stated: tuple[int, ...], ends: dict[int, str], tokenizer: Any) -> Iterator[str]:
    """What is not as plain transformers has it."""
    if not ends:
        yield (
            "nothing says where an answer ends (no end-of-sequence token in generation config, config, tokenizer or "
            "chat template): answers go on to --max-new-tokens, or to --stop"
        )
    more = {id_: source for id_, source in ends.items() if id_ not in stated}
    if more:
        words = tokenizer.convert_ids_to_tokens
        added = ", ".join(f"{words(id_)!r} ({id_}), which {source} ends an answer with" for id_, source in more.items())
        known = ", ".join(f"{words(id_)!r} ({id_})" for id_ in stated) or "no token"
        yield (
            f"answers end at {added}: generation_config.json names {known}, so transformers' generate() goes on unless "
            "it is given the same eos_token_id"
        )


def _defaults(generation: GenerationConfig, ends: tuple[int, ...]) -> GenerationDefaults:
    penalty = float(generation.repetition_penalty or 1.0)
    low, high = PENALTIES
    if not low <= penalty <= high:
        raise ValueError(f"repetition_penalty is {penalty:g}, not from {low:g} to {high:g}")
    limit = {} if generation.max_new_tokens is None else {"max_new_tokens": int(generation.max_new_tokens)}
    return GenerationDefaults(ends, penalty, suppress_tokens=_ids(generation.suppress_tokens), **limit)


def _load(folder: Path) -> GenerationConfig:
    try:
        return door.generation_config(folder)
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
