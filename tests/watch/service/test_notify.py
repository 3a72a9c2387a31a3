"""systemd's protocol, received by a real socket."""

import os
import socket
import uuid
from pathlib import Path

import pytest

from edgevlm.watch.service.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def listening(request, tmp_path: Path):
    """A socket as systemd has it, and its name as NOTIFY_SOCKET says it."""
    name = f"@edgevlm-{uuid.uuid4().hex}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name[1:] if name.startswith("@") else name)
        receiver.settimeout(60)
        yield receiver, name


def test_what_systemd_hears(listening):
    receiver, name = listening
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())})
    assert (notifier.present, notifier.interval) == (True, 15)
    notifier.ready()
    notifier.alive()
    notifier.say("12 judged,\nall well")
    notifier.stopping()
    heard = [receiver.recv(1000) for _ in range(4)]
    assert heard == [b"READY=1", b"WATCHDOG=1", b"STATUS=12 judged, all well", b"STOPPING=1"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "many"},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "me"},
    ],
)
def test_without_a_watchdog(environment):
    notifier = Notifier(environment)
    assert (notifier.present, notifier.interval) == (False, None)
    notifier.alive()


def test_a_supervisor_that_has_left_changes_nothing(tmp_path, caplog):
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    notifier.ready()
    notifier.alive()
    assert len(caplog.records) == 1
