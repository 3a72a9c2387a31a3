"""A sink's spool with what can be seen of it: how many wait, how many were dropped, a disk that takes nothing.

Nothing that was recorded is missing in it: what a kill kept from it is read from the record file when it is opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from pathlib import Path

from edgevlm.watch.sinks.base import About
from edgevlm.watch.sinks.messages import record_json
from edgevlm.watch.sinks.spooling.missed import missed, newest, number_of
from edgevlm.watch.sinks.spooling.position import RECORD, read_number, write_number
from edgevlm.watch.sinks.spooling.spool import Spool
from edgevlm_runtime.errors import EdgeVLMError, reason
from edgevlm_runtime.options import need

MIB = 1 << 20
LONGEST_DRAIN_S = 60
SAVE_EVERY = 64
"""Acknowledgements, at most, that a kill makes forgotten: so many records come a second time."""


def check_spool(spool_mb: float, drain_s: float) -> None:
    """Raise `EdgeVLMError` for bad values of these options."""
    need(0 < spool_mb <= MIB, "spool_mb", spool_mb, "above 0, in MiB")
    need(0 <= drain_s <= LONGEST_DRAIN_S, "drain_s", drain_s, f"from 0 to {LONGEST_DRAIN_S} seconds")


class Kept:
    """Records that wait for one peer; another peer never gets what waited for this one."""

    def __init__(self, kind: str, address: str, target: object, spool_mb: float, about: About) -> None:
        """`address`: the peer's, to show; `target`: everything that makes it another peer; `about`: whose folder is for
        all spools.

        Raises `EdgeVLMError`.
        """
        digest = hashlib.sha256(repr(target).encode()).hexdigest()
        self._folder = about.folder / f"spool-{kind}-{digest[:12]}"
        self.spool = Spool(self._folder, int(spool_mb * MIB))
        status = about.status
        self._kind, self._address, self._status = kind, address, status
        self._condition = f"sink {kind} spool"
        self._told = 0
        self._unsaved = 0
        """Acknowledgements since it was last written how far the peer has the records."""
        self._saving = threading.Lock()
        self._disk_full = False
        self._caught_up = 0
        """Records up to this number were added from the record file."""
        self._last = self._saved = 0
        """Number of the record that was added last, and which of them the disk knows of."""
        if about.records is not None:
            with contextlib.suppress(EdgeVLMError):  # a disk that takes nothing, which is shown, keeps no verdict back
                self._catch_up(about.records)

    def add(self, payload: bytes) -> None:
        """Keep a record. Raises `EdgeVLMError` when the disk takes nothing."""
        number = number_of(payload)
        if number <= self._caught_up:
            return
        self._add(payload)
        self._last = number

    def _add(self, payload: bytes) -> None:
        try:
            self.spool.append(payload)
        except EdgeVLMError as error:
            self._disk_full = True
            self._status.raise_condition(self._condition, str(error))
            raise
        self._disk_full = False

    def acknowledge(self, number: int) -> None:
        """The peer has this entry. Writes how far it has them all now and then, for a process that is killed before its
        next `tick`, which says what the disk has against it."""
        self.spool.acknowledge(number)
        self._unsaved += 1
        if self._unsaved >= SAVE_EVERY:
            with contextlib.suppress(EdgeVLMError):
                self._save()

    def tick(self) -> None:
        """About once a second: write how far the peer has the records. Raises `EdgeVLMError`."""
        dropped, self._told = self.spool.dropped - self._told, self.spool.dropped
        waiting = self.spool.waiting
        if dropped:
            self._status.count(f"sink_{self._kind}_dropped", dropped)
            text = f"more records wait for {self._address} than spool_mb holds: {self.spool.dropped} were dropped"
            self._status.raise_condition(self._condition, text)
        elif waiting == 0 and not self._disk_full:
            self._status.clear_condition(self._condition)
        self._status.measure(f"sink_{self._kind}_waiting", waiting)
        self._save()

    def close(self) -> None:
        """Write the same a last time, and let go of the spool. Raises `EdgeVLMError`."""
        try:
            self._save()
        finally:
            self.spool.close()

    def _catch_up(self, records: Path) -> None:
        """Add what was recorded and never came here; a spool that is new begins with the next record."""
        entry = self.spool.last
        known = read_number(self._folder, RECORD) if entry is None else number_of(entry)
        if known is None:
            known, self._saved = newest(records), -1  # to be written in any case
        self._last = known
        for record in missed(records, known):
            self._add(record_json(record))
            self._last = self._caught_up = record.number
        self._save_last()

    def _save(self) -> None:
        """The number of the last record first: entries said it until they are deleted."""
        with self._saving:
            self._unsaved = 0
            try:
                self._save_last()
            finally:
                self.spool.save()

    def _save_last(self) -> None:
        last = self._last
        if last == self._saved:
            return
        try:
            write_number(self._folder, RECORD, last)
        except OSError as error:
            raise EdgeVLMError(f"cannot write to the spool {self._folder}: {reason(error)}") from error
        self._saved = last
