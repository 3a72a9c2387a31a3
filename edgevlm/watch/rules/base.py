"""What every rule is: how a question is asked, and which verdict its answer gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from edgevlm_runtime import Session

UNSURE = "unsure"
"""The verdict of an answer that is not sure enough: one like the others, which every sink gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What one question gave."""

    verdict: str
    """Empty where the question decides nothing."""
    answer: str
    """The likeliest choice, or the text."""
    probability: float | None = None
    """Of `answer`, calibrated where the bundle has a fit; of free text, where asked for, the mean of its tokens'."""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """Of each choice."""
    value: Any = None
    """The answer as data, for a schema."""
    tokens: tuple[int, ...] = ()
    """Generated tokens; none where choices were scored."""
    error: str = ""
    """Why an answer is `UNSURE` that cannot be used, as text that is no JSON."""


class Rule(Protocol):
    """Made by the `make_rule(options)` of its file."""

    def check(self, session: Session, question: str) -> None:
        """Whether this bundle can answer such a question. Raises `EdgeVLMError`, as for choices that tokenize alike."""
        ...

    def judge(self, session: Session, question: str) -> Judged:
        """Ask, and say what the answer means. Raises `EdgeVLMError` when there is none."""
        ...

    @property
    def words(self) -> tuple[str, ...]:
        """Every verdict it can give, without `UNSURE`; none where it describes only, and decides nothing."""
        ...
