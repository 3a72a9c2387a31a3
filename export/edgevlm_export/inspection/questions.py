"""Questions about a part, and their exact answers.

A kind of question is a group of phrasings and a function from the part to the answer; ``KINDS`` names them all, in the
order in which tables show them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgevlm_export.inspection.draws import Draws
from edgevlm_export.inspection.parts import Part

QUESTION_STREAM = 3

Answer = Callable[[Part], str]


@dataclass(frozen=True)
class Question:
    kind: str
    text: str
    answer: Answer


def defective(part: Part) -> str:
    return "yes" if part.defect else "no"


def sound(part: Part) -> str:
    return "no" if part.defect else "yes"


def defect_type(part: Part) -> str:
    return part.defect.kind if part.defect else "none"


def location(part: Part) -> str:
    return part.location or "nowhere"


def holes(part: Part) -> str:
    return str(len(part.holes))


def screws(part: Part) -> str:
    return str(len(part.screws))


def colour(part: Part) -> str:
    return part.colour


def code(part: Part) -> str:
    return part.code or "none"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _finding(part: Part) -> str:
    if part.defect is None:
        return "no defect"
    return f"{part.defect.kind} " + ("in the centre" if part.location == "centre" else f"at the {part.location}")


def report(part: Part) -> str:
    """One sentence: defect and place, fixtures, colour, code. A part without holes is counted by its screws."""
    fixtures = _counted(len(part.holes), "hole") if part.holes else _counted(len(part.screws), "screw")
    printed = f"code {part.code}" if part.code else "no code"
    return f"{_finding(part)}, {fixtures}, {part.colour} part, {printed}"


_PHRASINGS: dict[str, dict[Answer, tuple[str, ...]]] = {
    "exists": {
        defective: (
            "Is there a defect on this part?",
            "Is the part defective?",
            "Do you see any damage?",
        ),
        sound: (
            "Is the part free of defects?",
            "Is this part in good condition?",
            "Can this part be passed as good?",
        ),
    },
    "type": {
        defect_type: (
            "Which defect does the part have?",
            "What kind of defect is it?",
            "Name the defect.",
            "What is wrong with this part?",
            "What type of damage do you see?",
        ),
    },
    "location": {
        location: (
            "Where is the defect?",
            "In which area is the defect?",
            "Where on the part is the damage?",
            "Give the position of the defect.",
            "Which region of the part is damaged?",
        ),
    },
    "holes": {
        holes: (
            "How many holes does the part have?",
            "Count the holes.",
            "What is the number of drilled holes?",
            "How many drilled holes do you see?",
            "Number of holes?",
        ),
    },
    "screws": {
        screws: (
            "How many screws does the part have?",
            "Count the screws.",
            "What is the number of screws?",
            "How many screws are in place?",
            "Number of screws?",
        ),
    },
    "colour": {
        colour: (
            "What colour is the part?",
            "Which colour does the part have?",
            "Name the colour of the part.",
            "What is the part's colour?",
            "Colour of the part?",
        ),
    },
    "code": {
        code: (
            "What code is printed on the part?",
            "Read the printed code.",
            "Which code is on the label?",
            "What does the label say?",
            "Give the part code.",
        ),
    },
    "report": {
        report: (
            "Write an inspection report.",
            "Describe the part in one sentence.",
            "Report on this part.",
            "Summarise the inspection.",
            "Give a full report of the part.",
        ),
    },
}

QUESTIONS: dict[str, tuple[Question, ...]] = {
    kind: tuple(Question(kind, text, answer) for answer, texts in phrasings.items() for text in texts)
    for kind, phrasings in _PHRASINGS.items()
}
"""Every phrasing of every kind."""
KINDS = tuple(QUESTIONS)


def ask(part: Part, first: str | None = None) -> list[Question]:
    """One question of every kind, in an order and in phrasings that the part's seed decides; ``first`` comes first."""
    draws = Draws(QUESTION_STREAM, part.seed)
    kinds = draws.shuffled(KINDS)
    if first is not None:
        kinds.remove(first)
        kinds.insert(0, first)
    return [draws.choice(QUESTIONS[kind]) for kind in kinds]
