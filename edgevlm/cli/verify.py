"""`edgevlm verify`: is a bundle still what was exported, and does it still answer so here?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgevlm.terminal.engines import HEADER, lines
from edgevlm.terminal.errors import CHECK_FAILED
from edgevlm.terminal.output import emit_json, json_option, note, stdout_kept_clean, table
from edgevlm.terminal.types import FilePath, Name, loading_options

if TYPE_CHECKING:
    from edgevlm.cli.records import VerifyReport
    from edgevlm_runtime.bundle.folder import Bundle
    from edgevlm_runtime.checks.engines import GraphTrials
    from edgevlm_runtime.checks.parity import Parity
    from edgevlm_runtime.checks.verification import FilesReport, ProviderResult

ORT = "ort"
"""The engine that has execution providers."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a second measurement gave."""

    reference: str
    """The PyTorch model, and how it ran."""
    same_checkpoint: bool | None
    """Whether the bundle was made from it; None where the bundle does not tell."""
    parity: Parity


@click.command("verify", short_help="Check a bundle: files, self-test, parity.")
@click.argument("bundle", type=FilePath())
@click.option(
    "--reference", type=Name(), metavar="MODEL", help="Measure the certificate again, against this model in PyTorch."
)
@loading_options(providers=True)
@click.option("--self-test/--no-self-test", default=True, help="Ask the stored question (default).")
@click.option("--engines", is_flag=True, help="Say what each installed engine makes of each graph.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    bundle: Path,
    reference: str | None,
    loading: dict[str, Any],
    self_test: bool,
    engines: bool,
    as_json: bool,
) -> None:
    """Check that BUNDLE is what the exporter wrote, byte for byte, and that it answers here as it did there.

    Every file's digest is compared, then the stored question is asked on each --provider (cpu, unless given), or on
    --engine: image embeddings must be within the tolerance, tokens equal. Neither needs torch. With --reference (where
    the exporter is installed) the certificate is measured again and compared with the stored one, but for the answers
    that fewer image tokens change; MODEL must be the checkpoint that the bundle was made from.

    With --engines every installed engine runs each graph, in all it can compute in, beside ONNX Runtime: the smallest
    cosine of two rows, the largest difference of two values, and whether the self-test passes with it. What an engine
    cannot do is no fault of the bundle.

    Exits with 1 when something does not hold, and says what.

    \b
    Examples:
      edgevlm verify inspector-int8
      edgevlm verify inspector-int8 --provider cpu --provider cuda --json
      edgevlm verify inspector-fp16 --engine tensorrt-rtx
      edgevlm verify inspector-int8 --engines
      edgevlm verify inspector-int8 --reference inspector
    """
    from edgevlm_runtime.checks.verification import check_files

    engine = loading.get("engine", ORT)
    if engine != ORT and "provider" in loading:
        raise click.UsageError(f"--provider is ONNX Runtime's: leave it out with --engine {engine}")
    with stdout_kept_clean():
        opened, files = check_files(bundle)
        usable = opened is not None and not files.bad
        sound = opened if usable else None
        results = _self_tests(sound, **loading) if sound is not None and self_test else []
        compared = _compare(sound, loading.get("threads")) if sound is not None and engines else None
        measured, drift = _measure(sound, reference) if sound is not None and reference else (None, [])
    problems = [f"{bundle / bad.file}: {bad.problem}" for bad in files.bad]
    problems += [f"self-test on {result.provider}: {result.problem}" for result in results if not result.passed]
    problems += drift
    if as_json:
        emit_json(_report(bundle, files, results, measured, compared, problems))
    else:
        _say(files, results, measured)
        _say_engines(compared)
    for problem in problems:
        note(f"Does not hold: {problem}")
    context.exit(CHECK_FAILED if problems else 0)


def _self_tests(
    bundle: Bundle, provider: tuple[str, ...] = ("cpu",), engine: str = ORT, threads: int | None = None
) -> list[ProviderResult]:
    from edgevlm_runtime.checks.verification import check_self_test

    if bundle.manifest.self_test is None:
        note("This bundle carries no self-test.")
        return []
    if engine != ORT:
        return [check_self_test(bundle, engine, threads, engine)]
    return [check_self_test(bundle, name, threads) for name in provider]


def _compare(bundle: Bundle, threads: int | None) -> tuple[GraphTrials, ...] | None:
    from edgevlm.terminal.progress import StageProgress
    from edgevlm_runtime import load
    from edgevlm_runtime.checks.engines import compare

    if bundle.manifest.self_test is None:
        note("Engines cannot be compared: this bundle carries no self-test.")
        return None
    with StageProgress() as progress:
        vlm = load(bundle.path, engine=ORT, threads=threads, verify="size")
        return tuple(one.trials for one in compare(vlm.pipeline, 0, progress))


def _say_engines(compared: tuple[GraphTrials, ...] | None) -> None:
    if compared is not None:
        click.echo(table([HEADER, *(line for one in compared for line in lines(one.graph, one.trials))]))


def _measure(bundle: Bundle, reference: str) -> tuple[Measured, list[str]]:
    """The figures measured now, and what about them does not hold."""
    from edgevlm.terminal.progress import StageProgress
    from edgevlm_export.checkpoints.checkpoint import locate
    from edgevlm_export.checkpoints.fingerprint import other_checkpoint
    from edgevlm_export.proof.certificate import allowed_misses, certify, differences
    from edgevlm_export.proof.selftest import run_bytes
    from edgevlm_export.reference import given_template, open_reference
    from edgevlm_runtime.bundle.certificate import read_certificate
    from edgevlm_runtime.checks.parity import parity

    other = other_checkpoint(bundle.manifest, locate(reference))
    opened = open_reference(reference, run_bytes(bundle.manifest), given_template(bundle), bundle.manifest.image)
    with StageProgress() as progress:
        found = certify(bundle, opened, progress=progress)
    stored = read_certificate(bundle)
    drift = differences(stored, found) if stored is not None else []
    known = bundle.manifest.model.checkpoint is not None
    measured = Measured(found.reference, other is None if known else None, parity(found))
    missed = found.missed
    if stored is not None and stored.allowed_drift is not None:
        allowed = allowed_misses(stored, found)
        for line in allowed:
            note(f"Missed, and allowed at export ({stored.allowed_drift}): {line}")
        missed = tuple(line for line in missed if line not in allowed)
    return measured, [*([other] if other else []), *map(str, missed), *drift]


def _report(
    bundle: Path,
    files: FilesReport,
    results: list[ProviderResult],
    measured: Measured | None,
    compared: tuple[GraphTrials, ...] | None,
    problems: list[str],
) -> VerifyReport:
    from edgevlm.cli.records import SelfTestReport, VerifyReport

    tested = SelfTestReport(all(one.passed for one in results), {one.provider: one for one in results})
    return VerifyReport(
        bundle=str(bundle),
        passed=not problems,
        problems=tuple(problems),
        files=files,
        self_test=tested if results else None,
        reference=None if measured is None else measured.reference,
        same_checkpoint=None if measured is None else measured.same_checkpoint,
        parity=None if measured is None else measured.parity,
        engines=compared,
    )


def _say(files: FilesReport, results: list[ProviderResult], measured: Measured | None) -> None:
    click.echo(f"files: {files.checked} checked, {len(files.bad)} bad")
    for result in results:
        engine = "" if result.engine is None else f" ({result.engine}; {result.reason})"
        click.echo(f"self-test on {result.provider}{engine}: {'passed' if result.passed else 'FAILED'}")
    if measured is None:
        return
    click.echo(f"compared with {measured.reference}")
    for graph, figures in asdict(measured.parity).items():
        shown = ", ".join(f"{name} {value:.6g}" for name, value in (figures or {}).items() if value is not None)
        click.echo(f"{graph}: {shown or 'not measured'}")
