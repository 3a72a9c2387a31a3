"""Records of a watch that people marked, as a data set: the frames, the questions, the right answers.

What was marked right has the recorded answers. What was marked wrong has the answers that the mark gives, or, where it
gives only the right verdict, the one choice that stands for it. Nobody knows the others: they are left out.

Every case is what the watch asked: golden pictures first, the region cut out, masks black.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from edgevlm.evaluation.datasets.base import Case, DatasetOptions
from edgevlm.watch.frames.regions import cut
from edgevlm.watch.judging.question import Question
from edgevlm.watch.plan.plan import Plan
from edgevlm.watch.records import files, pictures
from edgevlm.watch.records.marks import RIGHT, Mark, read_marks
from edgevlm.watch.records.pictures import Kept, NotKept
from edgevlm.watch.records.reading import chains, records_of
from edgevlm.watch.records.record import AnswerInfo, Record
from edgevlm.watch.replay import run
from edgevlm.watch.rules import RULES
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.images.load import load_image

log = logging.getLogger(__name__)

CHOICE = "choice"
"""The kind of question whose options say which answers there are."""


@dataclass(frozen=True, slots=True)
class Marked:
    """A marked record whose picture is there."""

    record: Record
    plan: Plan
    answers: tuple[tuple[Question, str], ...]
    """Questions whose right answer is known, and that answer."""


@dataclass(frozen=True, slots=True)
class Records:
    """Cases of marked records, in the records' order; pictures are opened one record at a time."""

    name: str
    identity: str
    marked: tuple[Marked, ...]
    kept: Kept
    n: int

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Case]:
        left = self.n
        for one in self.marked:
            for case in _cases(one, self.kept)[:left]:
                left -= 1
                yield case


@dataclass(slots=True)
class _Collected:
    marked: list[Marked] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def holds(path: Path) -> bool:
    """Whether there are records in this file or folder."""
    try:
        return any(any(file.is_file() for file in chain) for chain in chains(path))
    except EdgeVLMError:
        return False


def load(name: str, options: DatasetOptions) -> Records:
    """The marked records of a file or folder.

    Raises `EdgeVLMError` where nothing was marked, no picture of it was kept, or nobody knows what is right.
    """
    if options.split is not None:
        raise EdgeVLMError(f"records have no splits: leave out --split {options.split}")
    path = Path(name)
    plans = run.find_plans(path)
    kept = pictures.find(run.folders(path, plans.values()))
    found = _Collected()
    for chain in chains(path):
        marks = read_marks(files.marks(chain[-1]))
        for record in records_of(chain) if marks else ():
            if record.id in marks:
                _collect(found, record, marks[record.id], plans, kept)
    for reason, count in found.left_out.most_common():
        log.warning("%d marked records are left out: %s", count, reason)
    if not found.marked:
        raise EdgeVLMError(f"no record of {name} has a mark, a picture and a known answer: mark some on the live page")
    if any(one.plan.system is not None for one in found.marked):
        log.warning("the watch had a system prompt of its own (%s): the bundle's is used here", name)
    total = sum(len(one.answers) for one in found.marked)
    n = min(options.n or total, total)
    return Records(name, f"records {_digest(found.marked)} {n}", tuple(found.marked), kept, n)


def _collect(found: _Collected, record: Record, mark: Mark, plans: dict[str, Plan], kept: Kept) -> None:
    if record.plan not in plans:
        found.left_out["their plan was not kept"] += 1
        return
    try:
        kept.frame(record)
    except NotKept as error:
        found.left_out[error.reason] += 1
        return
    plan = plans[record.plan]
    answers = tuple(_right(record, mark, plan))
    if answers:
        found.marked.append(Marked(record, plan, answers))
    else:
        found.left_out["the mark does not say which answer is right"] += 1


def _right(record: Record, mark: Mark, plan: Plan) -> Iterator[tuple[Question, str]]:
    """Every question whose right answer is known."""
    given = {answer.question: answer for answer in record.answers}
    for question in plan.questions:
        answer = _right_answer(question, given.get(question.name), mark, plan)
        if answer:
            yield question, answer


def _right_answer(question: Question, given: AnswerInfo | None, mark: Mark, plan: Plan) -> str:
    if question.name in mark.answers:
        return mark.answers[question.name]
    if mark.mark == RIGHT:
        return "" if given is None or given.error else given.answer
    deciding = [one.name for one in plan.questions if RULES.get(one.kind).make_rule(one.options).words]
    if not mark.verdict or deciding != [question.name] or question.kind != CHOICE:
        return ""
    verdicts = question.options.verdicts
    meant = [choice for choice in question.options.choices if verdicts.get(choice, choice) == mark.verdict]
    return meant[0] if len(meant) == 1 else ""


def _cases(one: Marked, kept: Kept) -> list[Case]:
    """Questions about the same region follow each other."""
    frame = kept.frame(one.record).frame.pixels
    regions = {region.name: region for region in one.plan.regions}
    golden = one.plan.golden
    before = "" if golden is None or not golden.text else f"{golden.text}\n"
    cases = []
    for question, answer in sorted(one.answers, key=lambda pair: pair[0].region or ""):
        region = regions[question.region] if question.region else None
        pixels = [np.asarray(load_image(path)) for path in (golden.images if golden else ())]
        shown = [cut(each, region) if region and each.shape == frame.shape else each for each in (*pixels, frame)]
        cases.append(
            Case(
                id=f"{one.record.number:09d}-{one.record.id}-{question.name}",
                images=tuple(Image.fromarray(each) for each in shown),
                image_name=f"record {one.record.number}{f', {region.name}' if region else ''}",
                question=before + question.text,
                answer=answer,
                kind=question.name,
                choices=tuple(question.options.choices) if question.kind == CHOICE else (),
            )
        )
    return cases


def _digest(marked: list[Marked]) -> str:
    found = hashlib.sha256()
    for one in marked:
        answers = [(question.name, answer) for question, answer in one.answers]
        found.update(f"{one.record.sha256} {one.plan.digest} {answers}\n".encode())
    return found.hexdigest()[:16]
