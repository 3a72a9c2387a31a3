"""`edgevlm replay`: are the records of a watch whole, and would its frames be judged the same today?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgevlm.terminal.errors import CHECK_FAILED
from edgevlm.terminal.output import emit_json, json_option, note, stdout_kept_clean
from edgevlm.terminal.types import FilePath, Whole, loading_options

if TYPE_CHECKING:
    from edgevlm.watch.plan.plan import Plan
    from edgevlm.watch.records.verify import Verification
    from edgevlm.watch.replay.found import Flip, Replayed

_T = TypeVar("_T")
SHOWN = 20
"""Problems of a chain that are printed; `--json` has all."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who was asked, and what came of it."""

    bundle: Path
    digest: str
    found: Replayed


@click.command("replay", short_help="Check records of a watch, and ask its frames again.")
@click.argument("records", type=FilePath())
@click.option("--bundle", type=FilePath(), metavar="DIR", help="Ask this bundle. Default: the one of the plan.")
@click.option("--plan", "plan_file", type=FilePath(), metavar="FILE", help="Ask by this plan, not by the records' own.")
@click.option(
    "--pictures", type=FilePath(), multiple=True, metavar="DIR", help="Look for kept pictures here too; may repeat."
)
@click.option("--last", type=Whole(1), metavar="N", help="Ask the newest N records that can be asked. Default: all.")
@click.option("--max-flips", type=Whole(0), metavar="N", help="Exit with 1 when more verdicts are others.")
@click.option("--check", is_flag=True, help="Check the chain of records alone; no bundle is needed.")
@loading_options()
@json_option
@click.pass_context
def command(
    context: click.Context,
    records: Path,
    bundle: Path | None,
    plan_file: Path | None,
    pictures: tuple[Path, ...],
    last: int | None,
    max_flips: int | None,
    check: bool,
    loading: dict[str, Any],
    as_json: bool,
) -> None:
    """Check that RECORDS (the file of a watch, or a folder) are whole, ask its kept frames again, list what differs.

    Every record has the digest of the one before, so records that were removed, altered or exchanged are found. Frames
    are found by their digests beside the records, where the plan keeps pictures, and in --pictures; questions, regions
    and rules are those of the plan that was kept beside the records. With the same bundle no verdict is another. Run
    it before you change a bundle, a driver or a machine.

    Exits with 1 when the records are not whole, or when more than --max-flips verdicts differ.

    \b
    Examples:
      edgevlm replay line-1/records.jsonl --bundle inspector-int4 --max-flips 3
      edgevlm replay line-1/ --pictures /mnt/kept --last 500 --json
      edgevlm replay line-1/records.jsonl --check
    """
    from edgevlm.watch.records.verify import verify

    with stdout_kept_clean():
        chains = verify(records)
        asked = None if check else _ask(records, bundle, plan_file, pictures, last, loading, chains)
    flips = [] if asked is None else asked.found.flips
    problems = [str(problem) for chain in chains for problem in chain.problems]
    too_many = max_flips is not None and len(flips) > max_flips
    if as_json:
        _emit(records, chains, problems, asked, passed=not (problems or too_many))
    else:
        _show(chains, asked)
    for problem in problems[:SHOWN]:
        note(f"Does not hold: {problem}")
    if len(problems) > SHOWN:
        note(f"Does not hold: {len(problems) - SHOWN} further things (--json lists all)")
    if too_many:
        note(f"{len(flips)} verdicts differ, at most {max_flips} were allowed")
    context.exit(CHECK_FAILED if problems or too_many else 0)


def _ask(
    path: Path,
    bundle: Path | None,
    plan_file: Path | None,
    more: tuple[Path, ...],
    last: int | None,
    loading: dict[str, Any],
    chains: list[Verification],
) -> Asked:
    from edgevlm.terminal.progress import StageProgress
    from edgevlm.watch.plan.read import read as read_plan
    from edgevlm.watch.records import pictures
    from edgevlm.watch.replay import run
    from edgevlm.watch.replay.ask import replay
    from edgevlm.watch.replay.found import Replayed
    from edgevlm_runtime import load
    from edgevlm_runtime.errors import EdgeVLMError

    given = None if plan_file is None else read_plan(plan_file)
    plans = run.find_plans(path)
    kept = pictures.find([*run.folders(path, [*plans.values(), *([given] if given else [])]), *more])
    wanted = [given] if given else list(plans.values())
    if not wanted:
        raise EdgeVLMError(f"no plan was kept beside {path}: name the one that its records were made by with --plan")
    folder = bundle or _one_bundle(wanted)
    vlm = load(folder, **{**wanted[-1].loading, **loading})
    found, total = Replayed(), sum(chain.records for chain in chains)
    with StageProgress() as progress:
        records = _told(run.newest(run.read(path, found), kept, last), last or total, progress)
        if given is not None:
            replay(records, kept, vlm, given, into=found)
        else:
            run.replay_by_plan(records, kept, vlm, plans, found)
    if not found.asked:
        raise EdgeVLMError(
            f"no record could be asked again: {_reasons(found)}: name a folder of pictures with --pictures"
        )
    return Asked(folder, vlm.bundle.content_digest, found)


def _one_bundle(plans: Iterable[Plan]) -> Path:
    from edgevlm_runtime.errors import EdgeVLMError

    found = list(dict.fromkeys(plan.bundle for plan in plans))
    if len(found) > 1:
        raise EdgeVLMError(
            f"the records' plans name several bundles ({', '.join(map(str, found))}): choose with --bundle"
        )
    return found[0]


def _told(records: Iterable[_T], total: int, progress: Any) -> Iterator[_T]:
    for done, record in enumerate(records):
        progress("asking again", done, total)
        yield record
    progress("asking again", total, total)


def _reasons(found: Replayed) -> str:
    return ", ".join(f"{count} because {reason}" for reason, count in found.left_out.most_common())


def _show(chains: list[Verification], asked: Asked | None) -> None:
    for chain in chains:
        held = "whole" if not chain.problems else f"{len(chain.problems)} problems"
        click.echo(
            f"records {chain.first} to {chain.last}: {chain.records}, {held}; the last has sha256 {chain.sha256}"
        )
        for line in chain.notes:
            click.echo(f"  {line}")
    if asked is None:
        return
    found = asked.found
    for flip in found.flips:
        click.echo(_line(flip))
    click.echo(f"asked again: {found.asked} of {asked.bundle}; other verdicts: {len(found.flips)}")
    click.echo(f"largest change of a probability: {found.largest_change:.6f}")
    for reason, count in found.left_out.most_common():
        click.echo(f"not asked: {count}, {reason}")
    if found.inexact:
        click.echo(f"not exact: {found.inexact} asked with pictures kept as JPEG")


def _line(flip: Flip) -> str:
    part = f"  {' '.join(flip.part.split())}" if flip.part.strip() else ""
    why = "; ".join(
        f"{one.question}: {_said(one.old_answer, one.old_probability)} -> {_said(one.new_answer, one.new_probability)}"
        for one in flip.answers
    )
    inexact = "" if flip.exact else "  (JPEG)"
    return f"differs: record {flip.number}{part}  {flip.old} -> {flip.new}  {why}{inexact}"


def _said(answer: str, probability: float | None) -> str:
    return repr(answer) if probability is None else f"{answer!r} {probability:.3f}"


def _emit(records: Path, chains: list[Verification], problems: list[str], asked: Asked | None, *, passed: bool) -> None:
    from edgevlm.cli.records import ReplayReport
    from edgevlm.watch.replay.found import Replayed

    found = Replayed() if asked is None else asked.found
    emit_json(
        ReplayReport(
            records=str(records),
            passed=passed,
            found=sum(chain.records for chain in chains),
            problems=tuple(problems),
            notes=tuple(line for chain in chains for line in chain.notes),
            last_sha256=tuple(chain.sha256 for chain in chains),
            bundle=None if asked is None else str(asked.bundle),
            bundle_digest=None if asked is None else asked.digest,
            asked=found.asked,
            inexact=found.inexact,
            left_out=dict(found.left_out),
            largest_change=found.largest_change,
            flips=tuple(found.flips),
        )
    )
