"""The inspection record: everything that is asked about a part one by one, as one line of JSON.

    {"defect": "crack", "location": "top left", "holes": 2, "screws": 0, "colour": "red", "code": "P45"}

Keys and their order are always these; what a part has not is ``null``. Spaces are those of ``json.dumps`` and of the
runtime's forms, so that an answer held to ``RECORD_SCHEMA`` is written as training wrote it. The kind stands outside of
``KINDS``: the questions drawn for a part of the eight kinds stay what they were before there were records.
"""

from __future__ import annotations

import json
from typing import Any

from edgevlm_export.inspection.draws import Draws
from edgevlm_export.inspection.parts import CODE_LETTERS, COLOURS, DEFECTS, LOCATIONS, MOST_FIXTURES, Part
from edgevlm_export.inspection.questions import Question

RECORD_STREAM = 6
KIND = "record"


def record(part: Part) -> str:
    """The record of a part, one line of JSON."""
    facts = {
        "defect": part.defect.kind if part.defect else None,
        "location": part.location,
        "holes": len(part.holes),
        "screws": len(part.screws),
        "colour": part.colour,
        "code": part.code,
    }
    return json.dumps(facts)


RECORDS = tuple(
    Question(KIND, text, record)
    for text in (
        "Give the inspection record as JSON.",
        "Write the inspection record in JSON.",
        "Fill in the record of this part.",
        "Report as JSON.",
        "Describe the part as JSON.",
    )
)
"""Every phrasing."""

_FIELDS: dict[str, dict[str, Any]] = {
    "defect": {"enum": [*DEFECTS, None]},
    "location": {"enum": [*(name for row in LOCATIONS for name in row), None]},
    "holes": {"enum": list(range(MOST_FIXTURES + 1))},
    "screws": {"enum": list(range(MOST_FIXTURES + 1))},
    "colour": {"enum": list(COLOURS)},
    "code": {"anyOf": [{"type": "string", "pattern": f"^[{CODE_LETTERS}][0-9]{{2}}$"}, {"type": "null"}]},
}
RECORD_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": _FIELDS,
    "required": list(_FIELDS),
    "additionalProperties": False,
}
"""The JSON schema of a record."""


def ask_record(part: Part) -> Question:
    """The question for the record, in a phrasing that the part's seed decides."""
    return Draws(RECORD_STREAM, part.seed).choice(RECORDS)
