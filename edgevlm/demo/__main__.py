"""The demonstration behind `make demo`: export `inspector` to int8, draw three parts, ask, compare, show timings.

    python -m edgevlm.demo --out build/demo

Needs the exporter (and so torch), no network. The pictures and the bundle stay in the folder.
"""

from __future__ import annotations

import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

import edgevlm
from edgevlm.demo import MODEL, export_model, start
from edgevlm.terminal.output import table

if TYPE_CHECKING:
    from edgevlm_export.inspection import Part
    from edgevlm_export.reference import Reference

KINDS = ("exists", "type", "location", "code", "report")
GROUPS = ("new picture", "further question")
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

    bundle = export_model(out)
    reference = Reference.load(MODEL)
    vlm = edgevlm.load(bundle)
    every: list[Asked] = []
    for name, part in _parts():
        picture = _picture(out, name, part)
        asked = list(_inspect(vlm, reference, part, picture))
        _show(picture, asked)
        every += asked
    _timings(every)
    again = ("run", str(bundle), "--image", str(picture), "--prompt", "Count the holes.")
    click.echo(f"\nPictures and bundle: {out}\nTry:  {shlex.join((sys.executable, '-m', 'edgevlm', *again))}")


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
    """Medians in milliseconds of the questions whose picture had to be encoded, and of those that came after."""
    groups = [a for a in asked if a.answer.image_cache == "miss"], [a for a in asked if a.answer.image_cache == "hit"]
    figures: tuple[tuple[str, Callable[[Asked], float]], ...] = (
        ("int8 bundle, first token", lambda a: a.answer.timings.time_to_first_token),
        ("int8 bundle, whole answer", lambda a: a.answer.timings.total),
        ("PyTorch float32, whole answer (encodes the picture each time)", lambda a: a.pytorch_ms),
    )
    rows = [("", *(f"{what}, {len(group)} times" for what, group in zip(GROUPS, groups, strict=True)))]
    rows += [
        (what, *(f"{statistics.median(map(figure, group)):.1f} ms" for group in groups)) for what, figure in figures
    ]
    right = sum(str(a.answer) == a.truth for a in asked)
    click.echo(f"{right} of {len(asked)} answers right. Medians:\n{table(rows)}")


if __name__ == "__main__":
    start(main)
