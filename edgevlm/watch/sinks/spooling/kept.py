"""A sink's spool with what can be seen of it: how many wait, how many were dropped, a disk that takes nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgevlm.watch.sinks.spooling.spool import Spool
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import need

MIB = 1 << 20
LONGEST_DRAIN_S = 60


def check_spool(spool_mb: float, drain_s: float) -> None:
    """Raise `EdgeVLMError` for bad values of these options."""
    need(0 < spool_mb <= MIB, "spool_mb", spool_mb, "above 0, in MiB")
    need(0 <= drain_s <= LONGEST_DRAIN_S, "drain_s", drain_s, f"from 0 to {LONGEST_DRAIN_S} seconds")


class Kept:
    """Records that wait for one peer; another peer never gets what waited for this one."""

    def __init__(self, kind: str, address: str, target: object, spool_mb: float, folder: Path, status: Status) -> None:
        """`address`: the peer's, to show; `target`: everything that makes it another peer; `folder`: for all spools.

        Raises `EdgeVLMError`.
        """
        digest = hashlib.sha256(repr(target).encode()).hexdigest()
        self.spool = Spool(folder / f"spool-{kind}-{digest[:12]}", int(spool_mb * MIB))
        self._kind, self._address, self._status = kind, address, status
        self._condition = f"sink {kind} spool"
        self._told = 0
        self._disk_full = False

    def add(self, payload: bytes) -> None:
        """Keep a record. Raises `EdgeVLMError` when the disk takes nothing."""
        try:
            self.spool.append(payload)
        except EdgeVLMError as error:
            self._disk_full = True
            self._status.raise_condition(self._condition, str(error))
            raise
        self._disk_full = False

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
        self.spool.save()

    def close(self) -> None:
        """Write the same a last time. Raises `EdgeVLMError`."""
        self.spool.close()
