"""`edgevlm watch`: a camera, a few fixed questions, a verdict for every part."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgevlm.terminal.errors import CHECK_FAILED
from edgevlm.terminal.output import emit_json, json_option, note, stdout_kept_clean, table
from edgevlm.terminal.types import FilePath, Name, Number, Whole, loading_options

if TYPE_CHECKING:
    from edgevlm.watch.plan.plan import Plan
    from edgevlm.watch.service.run import Summary
    from edgevlm_runtime import VLM

INIT = "init"
SAMPLE = "watch.toml"
"""What `edgevlm watch init` writes without a name."""
ENDING = ".toml"
ORDER = "edgevlm.watch.order"
MOST_PORT = 65535


class InOrder(click.Command):
    """Keeps, in the context's `meta`, which options came in which order: click tells each option's values alone."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[ORDER] = [parameter.name for parameter in order]
        return super().parse_args(ctx, args)


@dataclass(frozen=True, slots=True)
class WrittenPlan:
    """With `init`: where the example is."""

    plan: str
    """The file that was written."""


@click.command("watch", cls=InOrder, short_help="Watch a camera: verdicts on parts.")
@click.argument("words", nargs=-1, required=True, type=Name(), metavar="PLAN | BUNDLE SOURCE | init [FILE]")
@click.option(
    "-q",
    "--question",
    "questions",
    multiple=True,
    type=Name(),
    metavar="TEXT",
    help="Asked about every frame; may repeat.",
)
@click.option(
    "--choices",
    multiple=True,
    type=Name(),
    metavar="A,B,C",
    help="Answers of the questions before it, or of all; without any, they are answered in words.",
)
@click.option("--system", metavar="TEXT", help="System prompt, in place of the bundle's own.")
@click.option(
    "--source",
    "source_kind",
    type=Name(),
    metavar="KIND",
    help="What SOURCE is, where its form does not tell: rtsp, http, snapshot, v4l2, video, folder, pictures.",
)
@click.option(
    "--every",
    type=Number(0.001),
    metavar="SECONDS",
    help="Judge a frame so often. Default: 1, and every picture of files.",
)
@click.option(
    "--trigger",
    type=Name(),
    metavar="KIND:VALUE",
    help="Judge a frame when: interval:SECONDS, every:N, mqtt://HOST/TOPIC, http:PORT, file:FILE, ...",
)
@click.option(
    "--region",
    type=Name(),
    metavar="X0,Y0,X1,Y1",
    help="Ask about this part: left, top, right, bottom in pixels, or as shares from 0 to 1.",
)
@click.option(
    "--golden",
    type=FilePath(),
    multiple=True,
    metavar="FILE",
    help="Picture of a good part, shown before every frame; may repeat.",
)
@click.option(
    "--deadline", type=Number(0.001), metavar="MS", help="Milliseconds from the frame to a verdict, in any case."
)
@click.option(
    "--default", type=Name(), metavar="WORD", help="The verdict when the deadline has passed. Default: unsure."
)
@click.option(
    "--sink",
    "sinks",
    multiple=True,
    type=Name(),
    metavar="KIND:PLACE",
    help="Who gets verdicts: terminal (default), jsonl:FILE, mqtt://HOST, webhook:URL, modbus:HOST, opcua:URL#NODE, "
    "pictures:FOLDER; may repeat.",
)
@click.option("--page", type=Whole(0, MOST_PORT), metavar="PORT", help="Show a live page to this machine at this port.")
@click.option("--name", type=Name(), metavar="NAME", help="Name of the watch, in topics and files. Default: watch.")
@click.option("--max-frames", type=Whole(1), metavar="N", help="Stop after N judged frames.")
@click.option("--dry-run", is_flag=True, help="Say what would happen, measure what a frame costs here, and stop.")
@loading_options()
@json_option
def command(
    words: tuple[str, ...],
    choices: tuple[str, ...],
    dry_run: bool,
    loading: dict[str, Any],
    max_frames: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Watch a camera: ask a few questions about every part, and give each a verdict.

    PLAN is a TOML file that says all of it; `edgevlm watch init` writes one with comments. For a quick start, flags
    say the same: BUNDLE, then SOURCE, which is an address (rtsp://, http://), a device (/dev/video0), a video file, a
    folder that fills, or pictures.

    It goes on until the source ends, Ctrl-C or --max-frames. With --dry-run the exit code is 1 when the plan cannot
    meet its deadline on this machine.

    \b
    Examples:
      edgevlm watch inspector-int8 /dev/video0 -q "Is there a scratch?" --choices yes,no --page 8750
      edgevlm watch inspector-int8 parts/*.png -q "Is there a scratch?" --choices yes,no --sink jsonl:records.jsonl
      edgevlm watch init line-1.toml
      edgevlm watch line-1.toml --dry-run
      edgevlm watch line-1.toml
    """
    from edgevlm.watch.judging.opening import open_bundle

    context = click.get_current_context()
    if words[0] == INIT and len(words) <= 2:
        _refuse({**given, "choices": choices, "max_frames": max_frames}, "init takes the name of a file alone")
        _init(Path(words[1] if len(words) > 1 else SAMPLE), as_json)
        return
    file, overriding = Path(words[0]) if len(words) == 1 else None, _overriding(loading, max_frames)
    if file is not None:
        _refuse({**given, "choices": choices}, f"{file} says everything")
        plan = _from_file(file, overriding)
    else:
        plan = _from_flags(words, context.meta[ORDER], choices, {**given, **overriding})

    def load() -> VLM:
        with stdout_kept_clean():
            return open_bundle(plan.bundle, plan.loading)

    if not dry_run:
        _run(plan, load, file, overriding, as_json)
    elif not _dry_run(plan, load(), file, as_json):
        context.exit(CHECK_FAILED)


def _refuse(given: dict[str, Any], why: str) -> None:
    """Raise `UsageError` for the first flag that was given and means nothing."""
    for name, value in given.items():
        if value not in (None, ()):
            flag = {"questions": "question", "source_kind": "source", "sinks": "sink"}.get(name, name)
            flag = flag.replace("_", "-")
            raise click.UsageError(f"{why}, leave out --{flag}.")


def _init(file: Path, as_json: bool) -> None:
    from edgevlm.watch.plan.sample import write

    write(file)
    if as_json:
        emit_json(WrittenPlan(str(file)))
    else:
        click.echo(f"{file} is written: change it, then: edgevlm watch {file} --dry-run")


def _overriding(loading: dict[str, Any], max_frames: int | None) -> dict[str, Any]:
    """What flags say in place of a plan."""
    return {"loading": loading, **({} if max_frames is None else {"max_frames": max_frames})}


def _from_file(file: Path, overriding: dict[str, Any]) -> Plan:
    from edgevlm.watch.plan.read import read

    if file.is_dir():
        raise click.UsageError(f"{file} is a folder, and a plan is a file: give a SOURCE after a bundle.")
    return read(file, overriding)


def _from_flags(words: tuple[str, ...], order: list[str], choices: tuple[str, ...], given: dict[str, Any]) -> Plan:
    from edgevlm.watch.plan.flags import Flags, grouped, plan_of

    if words[0].endswith(ENDING):
        raise click.UsageError(f"{words[0]} is a plan, which says its own source: leave out {words[1]}.")
    if not given["questions"]:
        raise click.UsageError("Missing option '--question'.")
    asked = [
        name.removesuffix("s") if name == "questions" else name for name in order if name in ("questions", "choices")
    ]
    return plan_of(Flags(bundle=Path(words[0]), source=words[1:], choices=grouped(asked, choices), **given))


def _dry_run(plan: Plan, vlm: VLM, file: Path | None, as_json: bool) -> bool:
    """Say what would happen; whether the plan can meet its deadline."""
    from edgevlm.watch.preview.preview import preview
    from edgevlm.watch.preview.report import rows

    with stdout_kept_clean():
        report = preview(plan, vlm, file=file, say=note)
    if as_json:
        emit_json(report)
    else:
        click.echo(table(list(rows(report))))
    return report.meets_deadline is not False


def _run(plan: Plan, load: Callable[[], VLM], file: Path | None, overriding: dict[str, Any], as_json: bool) -> None:
    """Watch until the end. With --json, standard output is for the summary alone."""
    from edgevlm.watch.plan.read import read
    from edgevlm.watch.service.run import run

    def again(path: Path) -> Plan:
        return quiet(read(path, overriding)) if as_json else read(path, overriding)

    with stdout_kept_clean() if as_json else contextlib.nullcontext():
        summary = run(quiet(plan) if as_json else plan, load, show=note, plan_file=file, read_plan=again)
    if as_json:
        emit_json(summary)
    else:
        note(_ended(summary))


def quiet(plan: Plan) -> Plan:
    """The plan without the terminal among its sinks."""
    return replace(plan, sinks=tuple(sink for sink in plan.sinks if sink.kind != "terminal"))


def _ended(summary: Summary) -> str:
    """The summary on one line."""
    verdicts = ", ".join(f"{word} {count}" for word, count in summary.verdicts.items()) or "no verdict"
    lost = [f"{name} {getattr(summary, name)}" for name in ("dropped", "skipped", "late") if getattr(summary, name)]
    kept = [f"{count} not taken by {name}" for name, count in summary.undelivered.items()]
    counts = f"{summary.judged} of {summary.frames} frames judged in {summary.seconds:.1f} s"
    return "; ".join([counts, verdicts, *lost, *kept])
