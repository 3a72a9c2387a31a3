"""The results as JSON and as an HTML page."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgevlm.evaluation.answerers import EDGEVLM, REFERENCE
from edgevlm.evaluation.overlap import AnswerScore, by_answer, mean_f1
from edgevlm.evaluation.reliability import Reliability
from edgevlm.evaluation.run import Evaluation
from edgevlm.evaluation.score import Outcome
from edgevlm.report import embed, render
from edgevlm.report.about import machine_summary
from edgevlm_runtime.errors import ImageError
from edgevlm_runtime.images import LoadOptions

SHOWN = 60
"""Cases with pictures on one page."""


@dataclass(frozen=True, slots=True)
class QuestionReport:
    """One kind of question."""

    n: int
    """Cases of this kind."""
    edgevlm: float | None
    """Share that the bundle answers right; null where no answer is known."""
    reference: float | None
    """The same of the PyTorch model; null without `--reference`."""
    flips: int | None
    """Cases that the two answer differently; null without `--reference`."""


@dataclass(frozen=True, slots=True)
class EvalReport:
    """How often the bundle answers right, and as the reference does. `--out` writes the same, with every case."""

    bundle: str
    """The folder, as it was given."""
    model: str
    """Name of the model in the bundle."""
    precision: dict[str, str]
    """How weights are stored, by graph."""
    dataset: str
    """Name of the data set."""
    reference: str | None
    """The PyTorch model compared with."""
    other_checkpoint: str | None
    """Why `reference` is not the checkpoint that the bundle was made from; null where it is, or nothing tells."""
    match: str
    """When two texts count as the same answer: "exact" or "loose"."""
    n: int
    """Number of cases."""
    exact_match: dict[str, float | None]
    """Share of right answers among the cases whose answer is known, of `edgevlm` and of `reference`."""
    token_f1: dict[str, float | None]
    """Mean of SQuAD's token F1 (docs/eval.md) over the same cases, of `edgevlm` and of `reference`."""
    by_question: dict[str, QuestionReport]
    """`exact_match`, by kind of question."""
    by_answer: dict[str, dict[str, AnswerScore]]
    """By kind of question, where its right answers are a few: precision and recall of the bundle, by answer."""
    flips: int | None
    """Cases that the two answer differently; this and what follows up to `same_tokens` is null without a reference."""
    flip_rate: float | None
    """These as a share of all."""
    became_wrong: int | None
    """Flips from a right answer of the reference to a wrong one of the bundle."""
    became_right: int | None
    """Flips from a wrong answer to a right one."""
    same_tokens: int | None
    """Cases in which both gave the same tokens, one by one."""
    errors: int
    """Cases that could not be asked, such as unreadable images."""
    answer_ms: dict[str, float | None]
    """Median time of an answer in milliseconds, of `edgevlm` and of `reference`, for orientation only."""
    calibration: Reliability | None
    """Whether the probabilities of choices mean what they say; null without questions that have choices."""
    calibration_file: str | None
    """Where `--fit-calibration` wrote the temperature."""
    cases: tuple[Outcome, ...]
    """The cases that the two answer differently; in the file of `--out` all of them."""


def report(evaluation: Evaluation, all_cases: bool = False) -> EvalReport:
    """The command's result. `cases` are those whose answers differ from the reference's, or every case."""
    scores, file = evaluation.scores, evaluation.calibration_file
    return EvalReport(
        bundle=str(evaluation.options.bundle),
        model=evaluation.model,
        precision=evaluation.precision,
        dataset=evaluation.dataset.name,
        reference=evaluation.options.reference,
        other_checkpoint=evaluation.other_checkpoint,
        match=evaluation.options.matcher,
        n=scores.n,
        exact_match=scores.exact_match,
        token_f1=_token_f1(evaluation),
        by_answer=by_answer(evaluation.results, evaluation.options.matcher),
        by_question={
            kind: QuestionReport(one.n, one.exact_match[EDGEVLM], one.exact_match[REFERENCE], one.flips)
            for kind, one in evaluation.by_question.items()
        },
        flips=scores.flips,
        flip_rate=scores.flip_rate,
        became_wrong=scores.broken,
        became_right=scores.fixed,
        same_tokens=scores.same_tokens,
        errors=scores.errors,
        answer_ms={engine: _middle(times) for engine, times in evaluation.milliseconds.items()},
        calibration=evaluation.calibration,
        calibration_file=None if file is None else str(file),
        cases=tuple(case for case in evaluation.results if all_cases or case.flipped),
    )


def page(evaluation: Evaluation) -> str:
    """The HTML page, with the cases to look at as pictures: flips, or wrong answers where there is no reference."""
    compared = evaluation.options.reference is not None
    chosen = [r for r in evaluation.results if (r.flipped if compared else r.right is False) or r.error]
    engines = [EDGEVLM, REFERENCE] if compared else [EDGEVLM]
    shares = {
        kind: [_hundred(one.exact_match[engine]) for engine in engines] for kind, one in evaluation.by_question.items()
    }
    return render(
        "eval.html.jinja",
        model=evaluation.model,
        bundle=evaluation.options.bundle.name,
        precision=evaluation.precision,
        dataset=evaluation.dataset.name,
        reference=evaluation.options.reference,
        other_checkpoint=evaluation.other_checkpoint,
        matcher={"exact": "exactly", "loose": "loosely"}.get(evaluation.options.matcher, evaluation.options.matcher),
        scores=evaluation.scores,
        by_question=evaluation.by_question,
        token_f1=_token_f1(evaluation),
        by_answer=by_answer(evaluation.results, evaluation.options.matcher),
        shares=shares,
        series=["bundle", "PyTorch"][: len(engines)],
        calibration=evaluation.calibration,
        cases_title="Answers that differ" if compared else "Wrong answers",
        cases=_with_pictures(chosen[:SHOWN], evaluation),
        cases_left_out=max(0, len(chosen) - SHOWN),
        machine=machine_summary(),
    )


def _with_pictures(chosen: list[Outcome], evaluation: Evaluation) -> list[dict[str, Any]]:
    wanted, how = {result.id: result for result in chosen}, evaluation.loading
    cases = [case for case in evaluation.dataset if case.id in wanted]
    pictures = {case.id: [_picture(image, how) for image in case.images] for case in cases}
    return [{**asdict(result), "pictures": [p for p in pictures[result.id] if p]} for result in chosen]


def _picture(image: Any, loading: LoadOptions) -> str | None:
    try:
        return embed(image, loading)
    except ImageError:  # a case may be here because its image cannot be read
        return None


def _token_f1(evaluation: Evaluation) -> dict[str, float | None]:
    results = evaluation.results
    compared = [one for one in results if one.reference is not None]
    return {EDGEVLM: mean_f1(results, lambda one: one.edgevlm), REFERENCE: mean_f1(compared, lambda one: one.reference)}


def _hundred(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


def _middle(times: list[float]) -> float | None:
    """The median."""
    return round(sorted(times)[len(times) // 2], 3) if times else None
