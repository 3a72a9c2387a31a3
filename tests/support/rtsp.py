"""A real RTSP server (examples/rtsp_server.py, by GStreamer) that can be hurt."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REQUIRED = "EDGEVLM_CAMERA_REQUIRED"
"""Set where a missing server is a failure: CI."""
PYTHON = "/usr/bin/python3"
"""Debian's, which has GStreamer's bindings."""
SCRIPT = Path(__file__).parents[2] / "examples" / "rtsp_server.py"
NEEDED = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"


class Server:
    """One that runs."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [PYTHON, str(SCRIPT), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url.startswith("rtsp://"), "the server did not start"
        self.port = int(self.url.split(":")[2].split("/")[0])

    def ask(self, line: str) -> None:
        """Have it do something bad (its own description says what), and wait until it begins."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        assert self._process.stdout.readline().strip() == f"done {line}"

    def kill(self) -> None:
        """As a power cut does."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def serving(*arguments: str | Path) -> Iterator[Server]:
    """A server with these arguments of its script. Skips the test where GStreamer's server is not installed."""
    need_server()
    server = Server(*map(str, arguments))
    try:
        yield server
    finally:
        server.kill()


def need_server() -> None:
    """Skip the test, or fail where `REQUIRED` is set."""
    there = (
        shutil.which(PYTHON) and not subprocess.run([PYTHON, "-c", NEEDED], capture_output=True, check=False).returncode
    )
    if there:
        return
    if os.environ.get(REQUIRED):
        pytest.fail(f"{PYTHON} has no GstRtspServer, and {REQUIRED} is set")
    pytest.skip(
        "no gst-rtsp-server: apt install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good (-bad, -ugly)"
    )
