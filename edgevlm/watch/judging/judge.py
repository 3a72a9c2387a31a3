"""From a frame to a verdict.

    with Judge(vlm, plan) as judge:
        judge.check()                       # what this bundle cannot answer is an error now, not on the line
        judgement = judge.judge(frame)

Every region has a session of its own, kept from frame to frame: one vision pass and one prefill of the picture serve
all its questions, and golden pictures, which come first, stay in the KV cache.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.judging.judgement import Judgement
from edgevlm.watch.judging.part import Asked, Part
from edgevlm.watch.judging.question import Asks
from edgevlm.watch.judging.worst import check_order, worst
from edgevlm.watch.rules import RULES
from edgevlm.watch.rules.base import UNSURE
from edgevlm_runtime import VLM
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.images.load import load_image


class Judge:
    """Asks a plan's questions about frames. For one thread at a time."""

    def __init__(self, vlm: VLM, plan: Asks) -> None:
        """Opens one session for each region that is asked about. `vlm` stays the caller's.

        Raises `EdgeVLMError` for a plan that gives no verdict, an unknown region, an order that lacks a verdict, and
        golden pictures or masks that cannot be read.
        """
        self._order = plan.order
        self._questions = tuple(
            Asked(question, RULES.get(question.kind).make_rule(question.options)) for question in plan.questions
        )
        self._deciding = tuple(asked.question.name for asked in self._questions if asked.rule.words)
        check_order(plan.order, {asked.question.name: asked.rule.words for asked in self._questions})
        regions = {region.name: region for region in plan.regions}
        for asked in self._questions:
            if asked.question.region is not None and asked.question.region not in regions:
                known = ", ".join(regions) or "none"
                raise EdgeVLMError(
                    f"question {asked.question.name}: unknown region {asked.question.region}: known are {known}"
                )
        golden = [] if plan.golden is None else [_pixels(vlm, path) for path in plan.golden.images]
        self._parts = []
        for name in dict.fromkeys(asked.question.region for asked in self._questions):
            here = tuple(asked for asked in self._questions if asked.question.region == name)
            self._parts.append(Part(vlm, plan, None if name is None else regions[name], here, golden))

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Every verdict there can be: as the plan orders them, else as its questions give them; `UNSURE` among them."""
        words = [word for asked in self._questions for word in asked.rule.words]
        return tuple(dict.fromkeys([*self._order, *words, UNSURE]))

    def check(self) -> None:
        """Ask every question once, about a grey picture, so that what cannot be asked is known before the first frame.

        Raises `EdgeVLMError`, naming the question, as for choices that tokenize alike or a context that is too short.
        """
        for part in self._parts:
            part.check()

    def judge(self, frame: Frame) -> Judgement:
        """The verdict on a frame. A question that cannot be answered says so in its `AnswerInfo.error`."""
        start = time.perf_counter()
        found = {answer.question: answer for part in self._parts for answer in part.judge(frame.pixels)}
        answers = tuple(found[asked.question.name] for asked in self._questions)
        verdict = worst([found[name].verdict for name in self._deciding], self._order)
        return Judgement(verdict=verdict, answers=answers, milliseconds=(time.perf_counter() - start) * 1e3)

    def close(self) -> None:
        """Release the sessions; may be called twice."""
        for part in self._parts:
            part.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _pixels(vlm: VLM, path: Path) -> NDArray[np.uint8]:
    """A picture file as the bundle opens pictures."""
    return np.asarray(load_image(path, vlm.pipeline.image_loading))
