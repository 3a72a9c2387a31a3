"""Records of drawn parts as JSON: do they parse, do they say what the same model says in free words, and how fast.

    python -m benchmarks.json_reports agreement BUNDLE     # counts, of an `inspector` bundle
    python -m benchmarks.json_reports speed BUNDLE         # tokens a second, on an idle machine

A record held to its JSON schema is compared with what was drawn and with three answers to the same picture that are
held to nothing: the record, the report in one sentence, and single questions. It needs weights that were taught the
record (`edgevlm_export/inspector/README.md`). Results go into benchmarks/results/json-reports.json.
"""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

import edgevlm_runtime
from benchmarks import kept
from edgevlm_export import inspection
from edgevlm_runtime import VLM
from edgevlm_runtime.asking.answer import Answer
from edgevlm_runtime.asking.session import Session
from edgevlm_runtime.form import Form
from edgevlm_runtime.text.constraint import Constraint

RESULTS = Path(__file__).parent / "results" / "json-reports.json"
Facts = dict[str, Any]
FORM = Form.json(inspection.RECORD_SCHEMA)
SINGLE = {
    "defect": "Name the defect.",
    "location": "Where is the defect?",
    "holes": "Count the holes.",
    "screws": "Count the screws.",
    "colour": "Name the colour of the part.",
    "code": "Read the printed code.",
}
"""A question for each field of the record."""
ABSENT = {"none", "nowhere"}
REPORT = "Write an inspection report."
_REPORT = re.compile(
    r"(no defect|(?P<defect>.+?) (?:in the (?P<middle>centre)|at the (?P<place>.+?))), "
    r"(?P<count>\d+) (?P<what>hole|screw)s?, (?P<colour>\w+) part, (?:no code|code (?P<code>\w+))"
)


def of_json(text: str) -> Facts | None:
    """What a record says; None where it is no JSON object."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def of_single(answers: dict[str, str]) -> Facts:
    """What the single answers say, in the words of a record: counts are numbers where they are written as such."""
    said: Facts = {field: None if text in ABSENT else text for field, text in answers.items()}
    for field in ("holes", "screws"):
        said[field] = int(said[field]) if str(said[field]).isdecimal() else said[field]
    return said


def of_report(text: str) -> Facts | None:
    """What the sentence says, in the words of a record; None for a sentence of another build."""
    found = _REPORT.fullmatch(text)
    if found is None:
        return None
    counts = {"holes": 0, "screws": 0, f"{found['what']}s": int(found["count"])}
    place = found["middle"] or found["place"]
    return {
        "defect": found["defect"],
        "location": place,
        **counts,
        "colour": found["colour"],
        "code": found["code"],
    }


def agreement(vlm: VLM, parts: int, start: int = 0) -> Counter[str]:
    """How many of the records of `parts` drawn parts parse and agree with each other way to ask."""
    counts: Counter[str] = Counter()
    with vlm.session() as session:
        for example in inspection.records("test", parts, start=start):
            session.show(example.image)
            held, free = _records(session, example.question)
            record = of_json(held.text) or {}
            single = of_single({field: session.ask(question).text for field, question in SINGLE.items()})
            counts.update(
                parts=1,
                parse=bool(record) and held.finish_reason == "stop",
                parse_unconstrained=of_json(free.text) is not None,
                same_text_unconstrained=held.text == free.text,
                agree_with_unconstrained=record == of_json(free.text),
                agree_with_report=record == of_report(session.ask(REPORT).text),
                agree_with_single_questions=record == single,
                as_drawn=held.text == example.answer,
                as_drawn_unconstrained=free.text == example.answer,
                single_questions_as_drawn=single == json.loads(example.answer),
            )
    return counts


def _records(session: Session, question: str) -> tuple[Answer, Answer]:
    return session.ask(question, form=FORM), session.ask(question)


@contextmanager
def one_by_one() -> Iterator[None]:
    """Tokens that a form forces are asked of the model like any other, as if nobody knew them."""
    known = Constraint.accept

    def accept(constraint: Constraint, token_id: int) -> list[int]:
        constraint.follow([token_id])
        return []

    Constraint.accept = accept  # type: ignore[method-assign]
    try:
        yield
    finally:
        Constraint.accept = known  # type: ignore[method-assign]


def _alone(session: Session, question: str) -> Answer:
    with one_by_one():
        return session.ask(question, form=FORM)


WAYS: dict[str, Callable[[Session, str], Answer]] = {
    "forced tokens together": lambda session, question: session.ask(question, form=FORM),
    "forced tokens one by one": _alone,
    "no form": lambda session, question: session.ask(question),
}


def speed(vlm: VLM, parts: int, start: int = 0) -> Facts:
    """Tokens a second after the first by way of asking, medians over the parts; the ways take turns."""
    names = list(WAYS)
    rates: dict[str, list[float]] = {name: [] for name in names}
    lengths: Counter[str] = Counter()
    with vlm.session() as session:
        for number, example in enumerate(inspection.records("test", parts, start=start)):
            session.show(example.image)
            session.ask(REPORT)  # encodes the picture
            for name in names[number % 3 :] + names[: number % 3]:
                answer = WAYS[name](session, example.question)
                lengths[name] += len(answer.token_ids)
                rates[name].append(1000 / answer.timings.decode_per_token)  # ms
    return {
        name: {
            "tokens_per_second": round(statistics.median(rates[name])),
            "tokens_per_answer": round(lengths[name] / parts, 1),
        }
        for name in names
    }


def _write(what: str, figures: Facts) -> None:
    kept.store(RESULTS, what, figures=figures)
    print(json.dumps(figures, indent=1))


MEASURED: dict[str, Callable[[VLM, int], Facts]] = {"agreement": agreement, "speed": speed}


@click.command()
@click.argument("what", type=click.Choice(list(MEASURED)))
@click.argument("bundle")
@click.option("--parts", type=int, default=1000, show_default=True, help="Drawn parts of the test split.")
def main(what: str, bundle: str, parts: int) -> None:
    """Count or measure with a bundle of `inspector`, and write it down."""
    vlm = edgevlm_runtime.load(bundle, engine="ort")
    figures = MEASURED[what](vlm, parts)
    _write(what, {"precision": vlm.manifest.graphs["decoder"].precision, "parts": parts, **figures})


if __name__ == "__main__":
    main()
