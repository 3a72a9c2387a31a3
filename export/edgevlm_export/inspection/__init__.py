"""Pictures of machined parts, with questions and exact answers: the data set that `inspector` learned from.

Drawn from seeds with integer arithmetic, so nothing is downloaded and every machine sees the same bytes::

    from edgevlm_export import inspection

    for example in inspection.examples(split="test", n=2000):
        example.image, example.question, example.answer, example.kind, example.part

Needs numpy and Pillow only.
"""

from __future__ import annotations

from edgevlm_export.inspection.drawing import draw
from edgevlm_export.inspection.examples import Example, examples, write
from edgevlm_export.inspection.parts import Defect, Label, Part, Scene, Spot
from edgevlm_export.inspection.questions import KINDS, QUESTIONS, Question, ask
from edgevlm_export.inspection.sampling import part
from edgevlm_export.inspection.splits import SPLITS, seeds, split_of

__all__ = [
    "KINDS",
    "QUESTIONS",
    "SPLITS",
    "Defect",
    "Example",
    "Label",
    "Part",
    "Question",
    "Scene",
    "Spot",
    "ask",
    "draw",
    "examples",
    "part",
    "seeds",
    "split_of",
    "write",
]
