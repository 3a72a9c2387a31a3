"""Plans that only ask, and frames of pictures that are at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.judging.question import Question
from edgevlm.watch.plan.plan import Part, Plan
from edgevlm.watch.rules import RULES

SCRATCH = "is there a scratch?"
HOLES = "how many holes are there?"


def question(text: str, kind: str = "choice", name: str = "", region: str | None = None, **options: Any) -> Question:
    """A question; one of yes and no unless told otherwise."""
    if kind == "choice":
        options.setdefault("choices", ("yes", "no"))
    made = RULES.get(kind).Options(**options)
    return Question(name=name or text, text=text, kind=kind, options=made, region=region)


def plan(*questions: Question, **fields: Any) -> Plan:
    """A plan of which a judge uses what it asks."""
    nothing = Part(kind="none", options=None)
    return Plan(bundle=Path("not-read"), source=nothing, trigger=nothing, questions=questions, **fields)


def frame(image: Image.Image, sequence: int = 1) -> Frame:
    """A frame of a picture."""
    return Frame(sequence, 0.0, 0.0, np.asarray(image.convert("RGB")))
