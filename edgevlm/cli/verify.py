"""`edgevlm verify`: is a bundle still what was exported, and does it still answer so here?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgevlm.cli.errors import CHECK_FAILED
from edgevlm.cli.output import emit_json, json_option, note, stdout_kept_clean

if TYPE_CHECKING:
    from edgevlm_runtime.bundle import Bundle
    from edgevlm_runtime.verification import FilesReport, ProviderResult


@click.command("verify", short_help="Check a bundle: files, self-test, parity.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--reference", metavar="MODEL", help="Measure the certificate again, against this model in PyTorch.")
@click.option("--provider", "providers", multiple=True, metavar="NAME", help="Execution provider; may repeat.")
@click.option("--threads", type=int, metavar="N", help="Threads of a graph. Default: the physical cores.")
@click.option("--self-test/--no-self-test", default=True, help="Ask the stored question (default).")
@json_option
@click.pass_context
def command(
    context: click.Context,
    bundle: Path,
    reference: str | None,
    providers: tuple[str, ...],
    threads: int | None,
    self_test: bool,
    as_json: bool,
) -> None:
    """Check that BUNDLE is what the exporter wrote, byte for byte, and that it answers here as it did there.

    Every file's digest is compared, then the stored question is asked on each --provider (cpu, unless given): image
    embeddings must be within the tolerance, tokens equal. Neither needs torch. With --reference (where the exporter
    is installed) the certificate is measured again and compared with the stored one.

    Exits with 1 when something does not hold, and says what.

    \b
    Examples:
      edgevlm verify inspector-int8
      edgevlm verify inspector-int8 --provider cpu --provider cuda --json
      edgevlm verify inspector-int8 --reference inspector
    """
    from edgevlm_runtime.verification import check_files

    with stdout_kept_clean():
        opened, files = check_files(bundle)
        usable = opened is not None and not files.bad
        results = _self_tests(opened, providers, threads) if opened is not None and usable and self_test else []
        parity, drift = _parity(opened, reference) if opened is not None and usable and reference else (None, [])
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


def _self_tests(bundle: Bundle, providers: tuple[str, ...], threads: int | None) -> list[ProviderResult]:
    from edgevlm_runtime.verification import check_self_test

    if bundle.manifest.self_test is None:
        note("This bundle carries no self-test.")
        return []
    return [check_self_test(bundle, provider, threads) for provider in providers or ("cpu",)]


def _parity(bundle: Bundle, reference: str) -> tuple[dict[str, Any], list[str]]:
    """The figures measured now, and what about them does not hold."""
    from edgevlm.cli.progress import StageProgress
    from edgevlm_export.certificate import certify, differences
    from edgevlm_export.reference import Reference
    from edgevlm_runtime.certificate import parity_json, read_certificate

    with StageProgress() as progress:
        found = certify(bundle, Reference.load(reference), progress=progress)
    stored = read_certificate(bundle)
    return parity_json(found), [*found.missed, *(differences(stored, found) if stored is not None else ())]


def _as_json(
    bundle: Path,
    files: FilesReport,
    results: list[ProviderResult],
    parity: dict[str, Any] | None,
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
        "parity": parity,
    }


def _say(files: FilesReport, results: list[ProviderResult], parity: dict[str, Any] | None) -> None:
    click.echo(f"files: {files.checked} checked, {len(files.bad)} bad")
    for result in results:
        click.echo(f"self-test on {result.provider}: {'passed' if result.passed else 'FAILED'}")
    for graph, figures in (parity or {}).items():
        shown = ", ".join(f"{name} {value:.6g}" for name, value in (figures or {}).items() if value is not None)
        click.echo(f"{graph}: {shown or 'not measured'}")
