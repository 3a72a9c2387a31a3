"""What a PLC is told: the state now, by name, kept until it is written; a verdict not for longer than it is fresh.

A PLC has no use for the history, which the records have: a verdict that comes late would be taken for another part's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import need

AGAIN_S = 1.0
"""Pause after a write that failed."""
LONGEST_KEEP_S = 3600


class Latest:
    """Values that are not written yet. Used from one thread."""

    def __init__(self, kind: str, status: Status, keep_s: float, none_yet: Mapping[str, Any]) -> None:
        """`none_yet`: what is written first, since the PLC still has what a run before this one left there."""
        self._kind, self._status, self._keep_s = kind, status, keep_s
        self._first: Mapping[str, Any] = dict(none_yet)
        self._unwritten = dict(none_yet)
        self._verdict: Mapping[str, Any] = {}
        self._until = self._again_at = 0.0

    def set(self, **values: Any) -> None:
        """To be written, instead of what was set under these names and is not written."""
        self._unwritten |= values

    def set_verdict(self, made: float, **values: Any) -> None:
        """The same, but for `keep_s` after `made`, by `time.monotonic()`, alone."""
        if self._verdict:
            self._status.count(f"sink_{self._kind}_dropped")
        self._verdict, self._until = values, made + self._keep_s

    def write(self, write: Callable[[Mapping[str, Any]], None]) -> None:
        """Write everything by `write`, which raises `EdgeVLMError`; what fails stays, and is a condition."""
        if self._verdict and time.monotonic() > self._until:
            self._status.count(f"sink_{self._kind}_dropped")
            self._verdict = {}
        values = {**self._first, **self._unwritten, **self._verdict}
        if not values or time.monotonic() < self._again_at:
            return
        condition = f"sink {self._kind} connection"
        try:
            write(values)
        except EdgeVLMError as error:
            self._again_at = time.monotonic() + AGAIN_S
            self._status.count(f"sink_{self._kind}_failed")
            self._status.raise_condition(condition, str(error))
            return
        if self._verdict:
            self._status.count(f"sink_{self._kind}_delivered")
        self._first, self._unwritten, self._verdict = {}, {}, {}
        self._status.clear_condition(condition)


def check_keep(keep_s: float) -> None:
    """Raise `EdgeVLMError` for a bad value of this option."""
    need(0 <= keep_s <= LONGEST_KEEP_S, "keep_s", keep_s, f"from 0 to {LONGEST_KEEP_S} seconds")


def codes_of(verdicts: tuple[str, ...], codes: Mapping[str, int], highest: int) -> dict[str, int]:
    """Verdict to code: the plan's, or 1, 2, ... Raises `EdgeVLMError` when a verdict has none."""
    for verdict, code in codes.items():
        need(1 <= code <= highest, f"codes.{verdict}", code, f"from 1 to {highest}")
    made = dict(codes) or {verdict: number for number, verdict in enumerate(verdicts, 1)}
    missing = [verdict for verdict in verdicts if verdict not in made]
    need(not missing, "codes", dict(codes), f"a code for every verdict: {', '.join(missing)} has none")
    unknown = [verdict for verdict in made if verdict not in verdicts]
    need(not unknown, "codes", ", ".join(unknown), f"verdicts of the plan: {', '.join(verdicts)}")
    return made
