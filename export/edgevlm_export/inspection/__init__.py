"""Pictures of machined parts, with questions and exact answers: the data set that `inspector` learned from.

Drawn from seeds with integer arithmetic, so nothing is downloaded and every machine sees the same bytes::

    from edgevlm_export import inspection

    for example in inspection.examples(split="test", n=2000):
        example.image, example.question, example.answer, example.kind, example.part

``records`` asks for all of it at once, as JSON of ``RECORD_SCHEMA``.

Needs numpy and Pillow only.
"""

from __future__ import annotations

from edgevlm_export.inspection.drawing import draw
from edgevlm_export.inspection.examples import Example, examples, records, write
from edgevlm_export.inspection.parts import Defect, Label, Part, Scene, Spot
from edgevlm_export.inspection.questions import KINDS, QUESTIONS, Question, ask
from edgevlm_export.inspection.record import RECORD_SCHEMA, RECORDS, ask_record
from edgevlm_export.inspection.sampling import part
from edgevlm_export.inspection.splits import SPLITS, seeds, split_of

__all__ = [
    "KINDS",
    "QUESTIONS",
    "RECORDS",
    "RECORD_SCHEMA",
    "SPLITS",
    "Defect",
    "Example",
    "Label",
    "Part",
    "Question",
    "Scene",
    "Spot",
    "ask",
    "ask_record",
    "draw",
    "examples",
    "part",
    "records",
    "seeds",
    "split_of",
    "write",
]
