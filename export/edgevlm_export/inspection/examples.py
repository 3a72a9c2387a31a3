"""Images with questions and answers, as a stream and as files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from edgevlm_export.inspection import splits
from edgevlm_export.inspection.drawing import draw
from edgevlm_export.inspection.parts import Part
from edgevlm_export.inspection.questions import KINDS, Question, ask
from edgevlm_export.inspection.record import ask_record
from edgevlm_export.inspection.sampling import part


@dataclass(frozen=True)
class Example:
    """One question about one image. Examples of the same part share the image object."""

    image: Image.Image
    question: str
    answer: str
    kind: str
    part: Part


def examples(split: str = "test", n: int = 2000, *, questions_per_image: int = 1, start: int = 0) -> Iterator[Example]:
    """``n`` questions of a split, the kinds in equal shares.

    With ``questions_per_image`` above one, that many different kinds follow each other for each image. ``start`` skips
    images. The same arguments give the same bytes on every machine.
    """

    def some(subject: Part, number: int) -> list[Question]:
        return ask(subject, first=KINDS[number % len(KINDS)])[:questions_per_image]

    yield from _asked(some, split, n, questions_per_image, start)


def records(split: str = "test", n: int = 1000, *, questions_per_image: int = 1, start: int = 0) -> Iterator[Example]:
    """``n`` questions as ``examples`` gives them, the last about each image being the one for its record, as JSON."""

    def some(subject: Part, number: int) -> list[Question]:
        return [*ask(subject)[: questions_per_image - 1], ask_record(subject)]

    yield from _asked(some, split, n, questions_per_image, start)


def _asked(
    some: Callable[[Part, int], list[Question]], split: str, n: int, questions_per_image: int, start: int
) -> Iterator[Example]:
    """What ``some`` asks about each part, given the part and its number; as many as ``questions_per_image``."""
    if not 1 <= questions_per_image <= len(KINDS):
        raise ValueError(f"questions_per_image must be from 1 to {len(KINDS)}, not {questions_per_image}")
    if n < 0 or start < 0:
        raise ValueError(f"n and start must not be negative, they are {n} and {start}")
    members = splits.seeds(split)[start:]
    if -(-n // questions_per_image) > len(members):
        raise ValueError(f"the {split} split has {len(members)} images from {start} on: too few for {n} questions")
    for index in range(n):
        turn = index % questions_per_image
        if turn == 0:
            number = index // questions_per_image
            subject = part(members[number])
            image = draw(subject)
            asked = some(subject, number)
        question = asked[turn]
        yield Example(image, question.text, question.answer(subject), question.kind, subject)


def write(directory: Path | str, split: str = "test", n: int = 2000, *, questions_per_image: int = 1) -> Path:
    """Save examples as ``images/*.png`` and ``questions.jsonl``, for people to look at and for other tools to use.

    Each line is ``{"image": "images/101000000.png", "question": ..., "answer": ..., "kind": ...}``, the image's path
    relative to the directory. Returns the path of ``questions.jsonl``.
    """
    folder = Path(directory)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    listing = folder / "questions.jsonl"
    written: set[str] = set()
    with listing.open("w", encoding="utf-8", newline="\n") as lines:
        for example in examples(split, n, questions_per_image=questions_per_image):
            name = f"images/{example.part.seed}.png"
            if name not in written:
                example.image.save(folder / name)
                written.add(name)
            row = {"image": name, "question": example.question, "answer": example.answer, "kind": example.kind}
            lines.write(json.dumps(row) + "\n")
    return listing
