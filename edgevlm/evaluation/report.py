"""The results as JSON and as an HTML page."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgevlm.evaluation.answerers import EDGEVLM, REFERENCE
from edgevlm.evaluation.run import Evaluation
from edgevlm.evaluation.score import Outcome, outcome_json, question_json
from edgevlm.report import embed, render
from edgevlm.report.about import machine_summary
from edgevlm_runtime.errors import ImageError
from edgevlm_runtime.images import LoadOptions

SHOWN = 60
"""Cases with pictures on one page."""


def as_json(evaluation: Evaluation, all_cases: bool = False) -> dict[str, Any]:
    """The command's JSON. `cases` are those whose answers differ from the reference's, or every case."""
    scores = evaluation.scores
    cases = evaluation.results if all_cases else [result for result in evaluation.results if result.flipped]
    return {
        "bundle": str(evaluation.options.bundle),
        "model": evaluation.model,
        "precision": evaluation.precision,
        "dataset": evaluation.dataset.name,
        "reference": evaluation.options.reference,
        "other_checkpoint": evaluation.other_checkpoint,
        "match": evaluation.options.matcher,
        "n": scores.n,
        "exact_match": scores.exact_match,
        "by_question": {kind: question_json(one) for kind, one in evaluation.by_question.items()},
        "flips": scores.flips,
        "flip_rate": scores.flip_rate,
        "became_wrong": scores.broken,
        "became_right": scores.fixed,
        "same_tokens": scores.same_tokens,
        "errors": scores.errors,
        "answer_ms": {engine: _middle(times) for engine, times in evaluation.milliseconds.items()},
        "calibration": None if evaluation.calibration is None else asdict(evaluation.calibration),
        "calibration_file": None if evaluation.calibration_file is None else str(evaluation.calibration_file),
        "cases": [outcome_json(result) for result in cases],
    }


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
    return [{**outcome_json(result), "pictures": [p for p in pictures[result.id] if p]} for result in chosen]


def _picture(image: Any, loading: LoadOptions) -> str | None:
    try:
        return embed(image, loading)
    except ImageError:  # a case may be here because its image cannot be read
        return None


def _hundred(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


def _middle(times: list[float]) -> float | None:
    """The median."""
    return round(sorted(times)[len(times) // 2], 3) if times else None
