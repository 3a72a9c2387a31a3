"""`edgevlm map`: the same questions about many pictures, a row for each answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgevlm.terminal.output import emit_json, json_option, note, stdout_kept_clean
from edgevlm.terminal.types import FilePath, Name, Whole, image_options, loading_options


@click.command("map", short_help="Ask a bundle about many pictures.")
@click.argument("bundle", type=FilePath())
@click.argument("source", metavar="INPUT", type=Name())
@click.argument("output", type=FilePath(dir_okay=False))
@click.option(
    "-q", "--question", "questions", type=Name(), multiple=True, metavar="TEXT", help="Asked of every row; may repeat."
)
@click.option("--choices", metavar="A,B,C", help="Weigh these answers instead of generating one.")
@click.option(
    "--schema", type=FilePath(exists=True, dir_okay=False), metavar="FILE", help="Answers are JSON of this schema."
)
@click.option("--system", metavar="TEXT", help="System prompt, in place of the bundle's own.")
@click.option("--max-new-tokens", type=Whole(1), metavar="N", help="End each answer after N tokens.")
@click.option("--image-column", type=Name(), metavar="NAME", help="Paths or bytes of pictures. Default: image.")
@click.option("--id-column", type=Name(), metavar="NAME", help="What names a row. Default: id, else its number.")
@click.option("--question-column", type=Name(), metavar="NAME", help="A row's own question. Default: question.")
@click.option("--workers", type=Whole(1, 1024), metavar="N", help="Processes. Default: by cores and free memory.")
@click.option("--resume", is_flag=True, help="Go on with work that was interrupted; errors are asked again.")
@click.option("--force", is_flag=True, help="Replace OUTPUT, and unfinished work beside it.")
@click.option("--ray", type=Name(), metavar="ADDRESS", help="Work on this Ray cluster, or on one started here: local.")
@loading_options()
@image_options
@json_option
def command(
    bundle: Path,
    source: str,
    output: Path,
    questions: tuple[str, ...],
    choices: str | None,
    schema: Path | None,
    system: str | None,
    max_new_tokens: int | None,
    image_column: str | None,
    id_column: str | None,
    question_column: str | None,
    workers: int | None,
    resume: bool,
    force: bool,
    ray: str | None,
    loading: dict[str, Any],
    apply_exif_orientation: bool | None,
    image_bit_depth: int | None,
    as_json: bool,
) -> None:
    """Ask BUNDLE about every picture of INPUT, and write a row for each picture and question to OUTPUT.

    INPUT is a folder of pictures, or a table of them: .parquet, .csv or .jsonl, local or at an address that fsspec
    knows (s3://...). OUTPUT is .parquet or .jsonl, with the columns id, image, question, answer, probability,
    probabilities, value, tokens, milliseconds and error, in the order of INPUT. A bad picture is a row with an error.

    Results are kept in OUTPUT.journal.jsonl as they come: after an interruption, the same command with --resume goes
    on. docs/scale.md says more, of Ray clusters too.

    \b
    Examples:
      edgevlm map inspector-int8 parts/ answers.parquet --question "Is there a scratch?" --choices yes,no
      edgevlm map inspector-int8 parts.csv answers.jsonl -q "Report." --schema report.schema.json --resume
      edgevlm map inspector-int8 parts.parquet answers.parquet --question-column asked --ray local --workers 4
    """
    from edgevlm.bulk.asking import Task
    from edgevlm.bulk.readers import Columns
    from edgevlm.bulk.run import MapOptions, run
    from edgevlm.terminal.progress import StageProgress

    images = {"apply_exif_orientation": apply_exif_orientation, "image_bit_depth": image_bit_depth}
    task = Task(
        bundle=str(bundle),
        choices=() if choices is None else tuple(choices.split(",")),
        schema=None if schema is None else _schema(schema),
        system=system,
        max_new_tokens=max_new_tokens,
        loading=loading | {name: value for name, value in images.items() if value is not None},
    )
    options = MapOptions(
        task=task,
        input=source,
        output=output,
        questions=questions,
        columns=Columns(image_column, id_column, question_column),
        workers=workers,
        resume=resume,
        force=force,
        ray=ray,
    )
    with stdout_kept_clean(), StageProgress() as progress:
        report = run(options, progress)
    if as_json:
        emit_json(report)
        return
    asked = report.rows - report.taken
    rate = f", {asked / report.seconds:.1f} a second" if asked and report.seconds else ""
    click.echo(f"{report.output}: {report.rows} rows in {report.seconds:.1f} s{rate}")
    if report.errors:
        note(f"{report.errors} of them have an error in place of an answer.")


def _schema(file: Path) -> str:
    from edgevlm_runtime.errors import EdgeVLMError
    from edgevlm_runtime.form import LARGEST
    from edgevlm_runtime.reading import read_text, why

    try:
        return read_text(file, LARGEST)
    except OSError as error:
        raise EdgeVLMError(f"cannot read {file}: {why(error)}: choose another --schema") from error
