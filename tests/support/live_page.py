"""A page in headless Chromium that stays open: scripts run in it, things are clicked, it is looked at while it changes.

Chromium's own debugging protocol over the two pipes of `--remote-debugging-pipe`: JSON, each message ended by a zero.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import select
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from PIL import Image

from tests.support.browser import FLAGS, browser

PATIENCE_S = 60.0
NO_NETWORK = ("--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9", "--allow-file-access-from-files")
"""Flags for pages in files: these are served on loopback."""


class LivePage:
    """One tab. Use it in a `with` block. Skips the test where no Chromium is."""

    def __init__(self, address: str, width: int = 1200, height: int = 1000) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        flags = [
            *(flag for flag in FLAGS if flag not in NO_NETWORK),
            "--remote-debugging-pipe",
            f"--user-data-dir={self._profile.name}",
            f"--window-size={width},{height}",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{to_write}', "-", browser(), *flags],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._numbers = itertools.count(1)
        self._rest = b""
        self._session: str | None = None
        targets = self._call("Target.getTargets")["targetInfos"]
        tab = next(one["targetId"] for one in targets if one["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        self.open(address)

    def open(self, address: str) -> None:
        """Go to an address."""
        self._call("Page.navigate", url=address)
        self.wait("document.readyState !== 'loading' && location.href !== 'about:blank'")

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited where it is a promise."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def text(self, selector: str) -> str:
        """What is written in the first element."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def wait(self, script: str) -> None:
        """Until the expression is true."""
        end = time.monotonic() + PATIENCE_S
        while not self.evaluate(script):
            assert time.monotonic() < end, f"never true: {script}: {self.evaluate('document.body.innerText')}"
            time.sleep(0.05)

    def screenshot(self, file: Path | None = None) -> Image.Image:
        """What is seen; also kept in `file`."""
        data = base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])
        if file is not None:
            file.write_bytes(data)
        return Image.open(io.BytesIO(data)).convert("RGB")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)
        self._profile.cleanup()

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE_S
        while True:
            answer = self._next(end)
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            assert ready, "Chromium does not answer"
            part = os.read(self._read, 1 << 16)
            assert part, "Chromium has ended"
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        return found
