"""What is said of a record: all of it as JSON, or the few fields that show the state now."""

from __future__ import annotations

from typing import Any

import msgspec

from edgevlm.watch.records.record import AnswerInfo, Record
from edgevlm.watch.sinks.base import Pending

LATE = "late"
"""Status of a record that is told as an event and never becomes the state: its place had the default verdict."""


def record_json(record: Record) -> bytes:
    """A record with all its fields, on one line."""
    return msgspec.json.encode(record, enc_hook=_plain)


def state(record: Record) -> dict[str, Any]:
    """The verdict that holds from now on."""
    decisive = decisive_answer(record)
    return {
        "verdict": record.verdict,
        "number": record.number,
        "id": record.id,
        "status": record.status,
        "probability": decisive and decisive.probability,
        "text": record.trigger_text,
        "triggered_at": record.triggered_at,
        "decided_at": record.decided_at,
        "latency_ms": record.latency_ms,
    }


def pending_state(pending: Pending) -> dict[str, Any]:
    """What is being judged."""
    return {
        "frame": pending.frame.sequence,
        "captured_at": pending.frame.captured_at,
        "trigger": pending.trigger,
        "text": pending.trigger_text,
    }


def decisive_answer(record: Record) -> AnswerInfo | None:
    """The first answer that gave the record's verdict; None where that came from no answer."""
    return next((answer for answer in record.answers if answer.verdict == record.verdict), None)


def _plain(value: Any) -> Any:
    """What msgspec does not know: numpy's numbers and read-only mappings."""
    if hasattr(value, "item"):
        return value.item()
    return dict(value) if hasattr(value, "keys") else str(value)
