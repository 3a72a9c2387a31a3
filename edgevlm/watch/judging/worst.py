"""From the verdicts of several questions to the frame's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgevlm.watch.rules.base import UNSURE
from edgevlm_runtime.errors import EdgeVLMError


def worst(verdicts: Sequence[str], order: Sequence[str]) -> str:
    """The worst of `verdicts` (at least one) in `order`, from worst to best; without an order, the first.

    `UNSURE` may stand for anything, so, where the order does not say otherwise, only its first verdict is worse.
    """
    if not order:
        return verdicts[0]
    ranks = {word: rank for rank, word in enumerate(with_unsure(order))}
    return min(verdicts, key=ranks.__getitem__)


def with_unsure(order: Sequence[str]) -> tuple[str, ...]:
    """The order with `UNSURE` in it."""
    return tuple(order) if UNSURE in order else (order[0], UNSURE, *order[1:])


def check_order(order: Sequence[str], words: Mapping[str, Sequence[str]]) -> None:
    """`words`: every verdict of each question, by its name.

    Raises `EdgeVLMError` when no question gives a verdict, or one gives what the order does not have.
    """
    if not any(words.values()):
        raise EdgeVLMError("no question gives a verdict: one at least needs choices, patterns or rules that do")
    for question, given in words.items():
        missing = [word for word in given if order and word not in with_unsure(order)]
        if missing:
            raise EdgeVLMError(
                f"question {question} gives the verdict {missing[0]}, which order does not have: "
                f"order = [{', '.join(order)}]: add it there, from worst to best"
            )
