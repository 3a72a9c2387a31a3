"""Ask everybody every question, keep the answers, count."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevlm.evaluation.answerers import EDGEVLM, Answerer, BundleAnswerer, Given, ReferenceAnswerer
from edgevlm.evaluation.datasets import Case, Dataset
from edgevlm.evaluation.log import AnswerLog
from edgevlm.evaluation.reliability import FEWEST, Reliability, Verdicts, collect, fit_temperature, reliability
from edgevlm.evaluation.score import MATCHERS, Outcome, Scores, by_kind, outcomes, score
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.images import LoadOptions

if TYPE_CHECKING:
    from edgevlm_runtime import VLM
    from edgevlm_runtime.bundle.folder import Bundle

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Told the stage's name, how much of it is done, and how much there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalOptions:
    """What is asked, and how. Raises `EdgeVLMError` for values that mean nothing."""

    bundle: Path
    reference: str | None = None
    """Alias, folder or id of the PyTorch model to compare with."""
    max_new_tokens: int | None = None
    """None takes the bundle's default, for the reference too."""
    matcher: str = "exact"
    provider: str = "cpu"
    engine: str = "ort"
    threads: int | None = None
    apply_exif_orientation: bool | None = None
    """As in `RuntimeOptions`, for the reference too."""
    image_bit_depth: int | None = None
    """As in `RuntimeOptions`, for the reference too."""
    log: Path | None = None
    """Where answers are kept while the evaluation runs."""
    resume: bool = False
    anew: bool = False
    """Whether a log that is there is replaced, whatever it holds; not with `resume`."""
    fit_calibration: bool = False
    """Fit the temperature of choices on these questions, and write it beside the bundle."""

    def __post_init__(self) -> None:
        if self.matcher not in MATCHERS:
            raise EdgeVLMError(f"unknown way to match answers: {self.matcher}: known are {', '.join(MATCHERS)}")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise EdgeVLMError(f"bad value for max_new_tokens: {self.max_new_tokens}: it must be at least 1")
        if self.resume and self.log is None:
            raise EdgeVLMError("nothing to resume from: give --out or --report, answers are kept beside them")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of it."""

    options: EvalOptions
    dataset: Dataset
    model: str
    precision: dict[str, str]
    """Of each graph of the bundle."""
    results: list[Outcome]
    scores: Scores
    by_question: dict[str, Scores]
    milliseconds: dict[str, list[float]]
    """By engine: what each answer took, for orientation (`edgevlm bench` measures)."""
    calibration: Reliability | None
    """Of the questions with choices; None without any."""
    calibration_file: Path | None
    """Where a temperature was written that was fitted now."""
    loading: LoadOptions
    """How pictures were opened."""
    other_checkpoint: str | None
    """A line that says so where the reference is not what the bundle was made from."""


def evaluate(options: EvalOptions, dataset: Dataset, progress: Progress = lambda *_: None) -> Evaluation:
    """Ask the bundle, then the reference, so that one model at a time is in memory.

    Raises what `edgevlm_runtime.load` and `Reference.load` raise, and `EdgeVLMError` for a log of another evaluation.
    """
    from edgevlm_runtime import load
    from edgevlm_runtime.bundle.choice_temperature import fit_path
    from edgevlm_runtime.saving import check_file

    if options.fit_calibration:
        check_file(fit_path(options.bundle), force=True)
    other = None if options.reference is None else _check_reference(options.bundle, options.reference)
    vlm = load(
        options.bundle,
        provider=options.provider,
        engine=options.engine,
        threads=options.threads,
        apply_exif_orientation=options.apply_exif_orientation,
        image_bit_depth=options.image_bit_depth,
    )
    manifest, loading = vlm.manifest, vlm.pipeline.image_loading
    limit = options.max_new_tokens or manifest.generation.max_new_tokens
    with AnswerLog(options.log, _header(options, dataset, vlm, limit), options.resume, options.anew) as log:
        _ask_all(BundleAnswerer(vlm, limit), dataset, log, progress)
        bundle, temperature = vlm.bundle, 1.0 if options.fit_calibration else vlm.choice_temperature
        del vlm
        gc.collect()
        if options.reference is not None:
            answerer = partial(
                ReferenceAnswerer, max_new_tokens=limit, system=manifest.prompt.system_prompt, loading=loading
            )
            _ask_reference(options.reference, bundle, answerer, dataset, log, progress)
        log.finish()
    verdicts = collect(dataset, log.answers[EDGEVLM])
    fitted = _fit(bundle, verdicts, dataset) if options.fit_calibration else None
    results = outcomes(dataset, log.answers, options.matcher)
    return Evaluation(
        options=options,
        dataset=dataset,
        model=manifest.model.name,
        precision={name: graph.precision for name, graph in manifest.graphs.items()},
        results=results,
        scores=score(results),
        by_question=by_kind(results),
        milliseconds={engine: _times(found.values()) for engine, found in log.answers.items()},
        calibration=reliability(verdicts, temperature if fitted is None else fitted[0]),
        calibration_file=None if fitted is None else fitted[1],
        loading=loading,
        other_checkpoint=other,
    )


def _check_reference(bundle: Path, reference: str) -> str | None:
    """Before anything is asked: is the reference there, does it fit into memory, and is the bundle made from it?

    Two models may be compared that are not made from one another, but nobody should take what differs for drift of the
    export: then the line that says so. Raises `CheckpointError` and `ReferenceTooLarge`.
    """
    from edgevlm_export.checkpoints.checkpoint import locate
    from edgevlm_export.checkpoints.fingerprint import other_checkpoint
    from edgevlm_export.reference.memory import check_memory
    from edgevlm_runtime.bundle.folder import Bundle

    folder = locate(reference)
    check_memory(folder)
    line = other_checkpoint(Bundle.open(bundle, verify="none").manifest, folder)
    if line is not None:
        logger.warning("%s: answers may differ for that reason", line)
    return line


def _fit(bundle: Bundle, verdicts: Verdicts, dataset: Dataset) -> tuple[float, Path]:
    """The temperature and where it was written. Raises `EdgeVLMError` when there is too little to fit it on."""
    from edgevlm_runtime.bundle.choice_temperature import TemperatureFit, write_fit

    if len(verdicts) < FEWEST:
        raise EdgeVLMError(
            f"cannot fit a temperature on {len(verdicts)} questions with choices and a known answer: "
            f"at least {FEWEST} are needed"
        )
    temperature = fit_temperature(verdicts)
    after = reliability(verdicts, temperature)
    assert after is not None
    fitted = TemperatureFit(bundle.content_digest, temperature, dataset.name, after.n, after.ece_raw, after.ece)
    return temperature, write_fit(bundle, fitted)


def _ask_reference(
    model: str,
    bundle: Bundle,
    make: Callable[[Any], Answerer],
    dataset: Dataset,
    log: AnswerLog,
    progress: Progress,
) -> None:
    from edgevlm_export.reference import Reference, given_template

    progress("loading PyTorch", 0, 1)
    reference = Reference.load(model, chat_template=given_template(bundle))
    progress("loading PyTorch", 1, 1)
    _ask_all(make(reference), dataset, log, progress)


def _ask_all(answerer: Answerer, dataset: Dataset, log: AnswerLog, progress: Progress) -> None:
    """Every case that the log does not have yet."""
    total, done = len(dataset), 0
    stage = f"asking {answerer.name}"
    progress(stage, 0, total)
    for group in _groups(dataset):
        missing = [case for case in group if not log.has(answerer.name, case.id)]
        done += len(group) - len(missing)
        if not missing:
            continue
        for given in answerer.answers(missing):
            log.add(answerer.name, given)
            done += 1
            progress(stage, done, total)
    progress(stage, total, total)


def _groups(dataset: Dataset) -> Iterator[list[Case]]:
    """Neighbouring cases with the same images."""
    for _, group in groupby(dataset, key=lambda case: case.image_name):
        yield list(group)


def _header(options: EvalOptions, dataset: Dataset, vlm: VLM, limit: int) -> dict[str, Any]:
    """What answers depend on."""
    return {
        "evaluation": 1,
        "bundle": vlm.bundle.content_digest,
        "dataset": dataset.identity,
        "reference": options.reference,
        "max_new_tokens": limit,
        "provider": options.provider,
        "engine": options.engine,
        "exif_orientation": vlm.pipeline.image_loading.apply_exif_orientation,
        "image_bit_depth": options.image_bit_depth,
    }


def _times(answers: Any) -> list[float]:
    given: list[Given] = list(answers)
    return [one.milliseconds for one in given if one.error is None]
