"""The two who are asked: a bundle in the runtime, and the PyTorch model it was made from."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from edgevlm.bulk.asking import about
from edgevlm.evaluation.datasets import Case
from edgevlm_runtime.asking.session import system_message, user_message
from edgevlm_runtime.errors import EdgeVLMError, one_line
from edgevlm_runtime.images import LoadOptions, open_image

if TYPE_CHECKING:
    from edgevlm_export.reference import Reference
    from edgevlm_runtime import VLM, Session

EDGEVLM = "edgevlm"
REFERENCE = "reference"


@dataclass(frozen=True, slots=True)
class Given:
    """One answer, as it is stored."""

    case: str
    text: str = ""
    token_ids: tuple[int, ...] = ()
    milliseconds: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)
    """Log-probability of each of the case's choices, where it has some."""
    error: str | None = None
    """Why there is no answer."""


class Answerer(Protocol):
    """Answers the cases of one group, which share their images."""

    name: str

    def answers(self, group: Sequence[Case]) -> Iterator[Given]:
        """One for each case, in order. A case that cannot be answered gives its error, and the others go on."""
        ...


class BundleAnswerer:
    """A bundle. Questions about the same images share one session, and so their prefix."""

    name = EDGEVLM

    def __init__(self, vlm: VLM, max_new_tokens: int) -> None:
        self._vlm = vlm
        self._limit = max_new_tokens

    def answers(self, group: Sequence[Case]) -> Iterator[Given]:
        return about(self._vlm, group[0].images, group, self._ask, lambda case, error: Given(case.id, error=error))

    def _ask(self, session: Session, case: Case) -> Given:
        answer = session.ask(case.question, max_new_tokens=self._limit, temperature=0.0, logprobs=False)
        scores = session.choose(case.question, case.choices).scores if case.choices else {}
        return Given(case.id, answer.text, answer.token_ids, answer.timings.total, scores)


class ReferenceAnswerer:
    """The PyTorch model, float32, transformers' own generate(); asked with the bundle's system prompt."""

    name = REFERENCE

    def __init__(
        self, reference: Reference, max_new_tokens: int, system: str | None = None, loading: LoadOptions | None = None
    ) -> None:
        """`loading`: how the bundle opens pictures, so that both see the same ones."""
        self._reference = reference
        self._limit = max_new_tokens
        self._system = system
        self._loading = loading or LoadOptions()

    def answers(self, group: Sequence[Case]) -> Iterator[Given]:
        for case in group:
            start = time.perf_counter()
            try:
                asked = [*system_message(self._system), user_message(case.question, case.images)]
                images = [open_image(image, self._loading) for image in case.images]
                answer = self._reference.answer(asked, images, max_new_tokens=self._limit)
            except (EdgeVLMError, OSError, ValueError) as error:  # the last two are transformers' processors'
                yield Given(case.id, error=one_line(error))
            else:
                taken = (time.perf_counter() - start) * 1e3
                yield Given(case.id, answer.text, answer.token_ids, taken)
