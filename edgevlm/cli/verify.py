"""`edgevlm verify`: is a bundle still what was exported, and does it still answer so here?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgevlm.terminal.errors import CHECK_FAILED
from edgevlm.terminal.output import emit_json, json_option, note, stdout_kept_clean
from edgevlm.terminal.types import FilePath, Name, loading_options

if TYPE_CHECKING:
    from edgevlm_runtime.bundle.folder import Bundle
    from edgevlm_runtime.checks.verification import FilesReport, ProviderResult

ORT = "ort"
"""The engine that has execution providers."""


@dataclass(frozen=True, slots=True)
class Parity:
    """What a second measurement gave."""

    reference: str
    """The PyTorch model, and how it ran."""
    same_checkpoint: bool | None
    """Whether the bundle was made from it; None where the bundle does not tell."""
    figures: dict[str, Any]


@click.command("verify", short_help="Check a bundle: files, self-test, parity.")
@click.argument("bundle", type=FilePath())
@click.option(
    "--reference", type=Name(), metavar="MODEL", help="Measure the certificate again, against this model in PyTorch."
)
@loading_options(providers=True)
@click.option("--self-test/--no-self-test", default=True, help="Ask the stored question (default).")
@json_option
@click.pass_context
def command(
    context: click.Context,
    bundle: Path,
    reference: str | None,
    loading: dict[str, Any],
    self_test: bool,
    as_json: bool,
) -> None:
    """Check that BUNDLE is what the exporter wrote, byte for byte, and that it answers here as it did there.

    Every file's digest is compared, then the stored question is asked on each --provider (cpu, unless given), or on
    --engine: image embeddings must be within the tolerance, tokens equal. Neither needs torch. With --reference (where
    the exporter is installed) the certificate is measured again and compared with the stored one; MODEL must be the
    checkpoint that the bundle was made from.

    Exits with 1 when something does not hold, and says what.

    \b
    Examples:
      edgevlm verify inspector-int8
      edgevlm verify inspector-int8 --provider cpu --provider cuda --json
      edgevlm verify inspector-fp16 --engine tensorrt-rtx
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
        parity, drift = _parity(sound, reference) if sound is not None and reference else (None, [])
    problems = [f"{bundle / bad.file}: {bad.problem}" for bad in files.bad]
    problems += [f"self-test on {result.provider}: {result.problem}" for result in results if not result.passed]
    problems += drift
    if as_json:
        emit_json(_as_json(bundle, files, results, parity, problems))
    else:
        _say(files, results, parity)
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


def _parity(bundle: Bundle, reference: str) -> tuple[Parity, list[str]]:
    """The figures measured now, and what about them does not hold."""
    from edgevlm.terminal.progress import StageProgress
    from edgevlm_export.checkpoints.checkpoint import locate
    from edgevlm_export.checkpoints.fingerprint import other_checkpoint
    from edgevlm_export.proof.certificate import allowed_misses, certify, differences
    from edgevlm_export.proof.selftest import run_bytes
    from edgevlm_export.reference import given_template, open_reference
    from edgevlm_runtime.bundle.certificate import parity_json, read_certificate

    other = other_checkpoint(bundle.manifest, locate(reference))
    opened = open_reference(reference, run_bytes(bundle.manifest), given_template(bundle))
    with StageProgress() as progress:
        found = certify(bundle, opened, progress=progress)
    stored = read_certificate(bundle)
    drift = differences(stored, found) if stored is not None else []
    known = bundle.manifest.model.checkpoint is not None
    parity = Parity(found.reference, other is None if known else None, parity_json(found))
    missed = found.missed
    if stored is not None and stored.allowed_drift is not None:
        allowed = allowed_misses(stored, found)
        for line in allowed:
            note(f"Missed, and allowed at export ({stored.allowed_drift}): {line}")
        missed = tuple(line for line in missed if line not in allowed)
    return parity, [*([other] if other else []), *map(str, missed), *drift]


def _as_json(
    bundle: Path,
    files: FilesReport,
    results: list[ProviderResult],
    parity: Parity | None,
    problems: list[str],
) -> dict[str, Any]:
    return {
        "bundle": str(bundle),
        "passed": not problems,
        "problems": problems,
        "files": asdict(files),
        "self_test": {
            "passed": all(result.passed for result in results),
            "providers": {result.provider: asdict(result) for result in results},
        }
        if results
        else None,
        "reference": None if parity is None else parity.reference,
        "same_checkpoint": None if parity is None else parity.same_checkpoint,
        "parity": None if parity is None else parity.figures,
    }


def _say(files: FilesReport, results: list[ProviderResult], parity: Parity | None) -> None:
    click.echo(f"files: {files.checked} checked, {len(files.bad)} bad")
    for result in results:
        engine = "" if result.engine is None else f" ({result.engine}; {result.reason})"
        click.echo(f"self-test on {result.provider}{engine}: {'passed' if result.passed else 'FAILED'}")
    if parity is not None:
        click.echo(f"compared with {parity.reference}")
    for graph, figures in (parity.figures if parity else {}).items():
        shown = ", ".join(f"{name} {value:.6g}" for name, value in (figures or {}).items() if value is not None)
        click.echo(f"{graph}: {shown or 'not measured'}")
