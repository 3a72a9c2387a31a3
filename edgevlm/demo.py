"""The demonstration behind `make demo`: export `inspector` to int8, draw three parts, ask, compare, show timings.

    python -m edgevlm.demo --out build/demo

Needs the exporter (and so torch), no network. The pictures and the bundle stay in the folder.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

import edgevlm
from edgevlm.cli.output import table

if TYPE_CHECKING:
    from edgevlm_export.inspection import Part
    from edgevlm_export.reference import Reference

MODEL = "inspector"
KINDS = ("exists", "type", "location", "code", "report")
ENLARGED = 384
"""Side in pixels of the pictures left for people to look at."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question with everybody's answer."""

    question: str
    truth: str
    answer: edgevlm.Answer
    pytorch: str
    pytorch_ms: float


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("build/demo"), show_default=True)
def main(out: Path) -> None:
    """Export the shipped model to int8 and let it inspect three parts it has never seen."""
    from edgevlm_export.reference import Reference

    bundle = _bundle(out)
    reference = Reference.load(MODEL)
    vlm = edgevlm.load(bundle)
    every: list[Asked] = []
    for name, part in _parts():
        picture = _picture(out, name, part)
        asked = list(_inspect(vlm, reference, part, picture))
        _show(picture, asked)
        every += asked
    _timings(every)
    click.echo(
        f"\nPictures and bundle: {out}\nTry:  edgevlm run {bundle} --image {picture} --prompt 'Count the holes.'"
    )


def _bundle(out: Path) -> Path:
    from edgevlm.cli.progress import StageProgress
    from edgevlm_export.api import ExportOptions, export

    click.echo(f"Exporting {MODEL} to int8 ...")
    with StageProgress() as progress:
        report = export(ExportOptions(MODEL, out / f"{MODEL}-int8", precision="int8", force=True), progress)
    click.echo(f"  {report.bundle}: {report.bytes_total / 2**20:.1f} MiB in {report.seconds:.0f} s\n")
    return report.bundle


def _parts() -> Iterator[tuple[str, Part]]:
    """One good part and two defective ones, all with a printed code, from seeds that training never saw."""
    from edgevlm_export import inspection

    parts = [part for part in map(inspection.part, inspection.seeds("test")[5000:5200]) if part.code]
    for name, wanted in (("good", None), ("scratched", "scratch"), ("screw-missing", "missing screw")):
        yield name, next(part for part in parts if (part.defect.kind if part.defect else None) == wanted)


def _picture(out: Path, name: str, part: Part) -> Path:
    """Save what the model sees, and an enlargement for people."""
    from PIL import Image

    from edgevlm_export import inspection

    image = inspection.draw(part)
    path = out / f"{name}.png"
    image.save(path)
    image.resize((ENLARGED, ENLARGED), Image.Resampling.NEAREST).save(out / f"{name}-enlarged.png")
    return path


def _inspect(vlm: edgevlm.VLM, reference: Reference, part: Part, picture: Path) -> Iterator[Asked]:
    from edgevlm_export import inspection

    with vlm.session(picture) as session:
        for kind in KINDS:
            question = inspection.QUESTIONS[kind][0]
            answer = session.ask(question.text)
            start = time.perf_counter()
            pytorch = reference.answer(question.text, [picture]).text
            milliseconds = (time.perf_counter() - start) * 1e3
            yield Asked(question.text, question.answer(part), answer, pytorch, milliseconds)


def _show(picture: Path, asked: Sequence[Asked]) -> None:
    click.echo(picture.name)
    rows = [("question", "int8 bundle", "PyTorch", "truth", "")]
    rows += [(a.question, str(a.answer), a.pytorch, a.truth, "" if str(a.answer) == a.truth else "<-") for a in asked]
    click.echo(table(rows) + "\n")


def _timings(asked: Sequence[Asked]) -> None:
    """Medians; the first question about a picture encodes it, the others reuse its keys and values."""
    first = [a.answer.timings.time_to_first_token for a in asked if a.answer.prefix_tokens_reused == 0]
    later = [a.answer.timings.time_to_first_token for a in asked if a.answer.prefix_tokens_reused > 0]
    whole = [a.answer.timings.total for a in asked]
    rows = [
        ("time to first token, new picture", f"{statistics.median(first):.1f} ms"),
        ("time to first token, further question", f"{statistics.median(later):.1f} ms"),
        ("whole answer, bundle", f"{statistics.median(whole):.1f} ms"),
        (
            "whole answer, PyTorch float32 (encodes the picture each time)",
            f"{statistics.median(a.pytorch_ms for a in asked):.1f} ms",
        ),
    ]
    right = sum(str(a.answer) == a.truth for a in asked)
    click.echo(f"{right} of {len(asked)} answers right. Medians:\n{table(rows)}")


if __name__ == "__main__":
    main()
