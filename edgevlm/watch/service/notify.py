"""systemd's notify protocol: one datagram to the socket named in NOTIFY_SOCKET (sd_notify(3)).

    READY=1       the bundle is loaded and everything is started
    WATCHDOG=1    it is alive; without it for WatchdogSec= the unit is killed and started again
    STATUS=...    one line for `systemctl status`
    STOPPING=1    it is about to end

Nothing happens where there is no such socket.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)


class Notifier:
    """Tells the supervisor. Errors are logged once and change nothing else."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._failed = False
        self.interval = _interval(environment)
        """Seconds between two WATCHDOG=1, half of what the unit allows; None where it has no watchdog."""

    @property
    def present(self) -> bool:
        """Whether a supervisor listens."""
        return bool(self._address)

    def ready(self) -> None:
        """Everything is started."""
        self._send("READY=1")

    def alive(self) -> None:
        """The threads make progress."""
        self._send("WATCHDOG=1")

    def say(self, text: str) -> None:
        """A line for `systemctl status`."""
        self._send(f"STATUS={' '.join(text.split())}")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(1)
                sender.sendto(message.encode(), self._address)
        except OSError as error:
            if not self._failed:
                log.warning("NOTIFY_SOCKET: %s: the supervisor is not told", error)
            self._failed = True


def _interval(environment: Mapping[str, str]) -> float | None:
    """From WATCHDOG_USEC, where it is meant for this process."""
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", ""))
        process = int(environment.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return None
    return microseconds / 2e6 if microseconds > 0 and process == os.getpid() else None
