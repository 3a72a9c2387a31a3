"""The parent's end of an engine's process."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

import msgspec

from edgevlm.benchmark.engines.base import Sample, Spec
from edgevlm.benchmark.workload import Task
from edgevlm_runtime import child
from edgevlm_runtime.errors import EdgeVLMError

_PROBE = "import time; start = time.process_time(); import {}; print(time.process_time() - start)"
_PATIENCE_S = 10


class EngineProcess:
    """An engine in a process of its own, so that peak memory and load time are its own. Use it in a `with` block."""

    def __init__(self, spec: Spec, task: Task) -> None:
        """Start and load. Raises `EdgeVLMError` with what the engine said, or when its process died."""
        self.spec = spec
        self.task = task
        self._messages = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (closed by `close`)
        worker = ["-m", "edgevlm.benchmark.worker"]
        self._process = child.start(worker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._messages)
        try:
            self._write({"spec": asdict(spec), "task": asdict(task)})
            self.loaded: dict[str, Any] = self._read()["loaded"]
        except BaseException:
            self.close()
            raise

    def ask(self) -> tuple[Sample, tuple[int, ...]]:
        """One round, and the tokens of the first answer."""
        self._write({"do": "ask"})
        message = self._read()
        return msgspec.convert(message["sample"], Sample), tuple(message["token_ids"])

    def sustain(self, seconds: float) -> Iterator[dict[str, Any]]:
        """Rounds for so long: `at_s`, `sample`, `clock_mhz`, `temperature_c` of each, as they come."""
        self._write({"do": "sustain", "seconds": seconds})
        while "done" not in (message := self._read()):
            yield {**message, "sample": msgspec.convert(message["sample"], Sample)}

    def end(self) -> float:
        """Peak resident set of the process in MiB."""
        self._write({"do": "end"})
        return float(self._read()["memory"]["peak_rss_mib"])

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._messages.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            self._process.kill()  # it may be in the middle of a long answer
        self.close()

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        message: dict[str, Any] = json.loads(line)
        if "missing" in message:
            raise ModuleNotFoundError(message["error"], name=message["missing"])
        if "error" in message:
            raise EdgeVLMError(message["error"])
        return message

    def _died(self) -> EdgeVLMError:
        code = self._process.wait()
        self._messages.seek(0)
        said = self._messages.read().strip().splitlines()
        last = f": {said[-1].strip()}" if said else ""
        hint = "; killed, as systems do when memory runs out: measure one engine at a time" if code == -9 else ""
        return EdgeVLMError(f"the process of {self.spec.label} ended with {code}{last}{hint}")


def import_cpu_ms(modules: str) -> float:
    """Processor time that a fresh interpreter takes to import `modules` (comma-separated). Raises `EdgeVLMError`."""
    done = child.run(["-c", _PROBE.format(modules)])
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EdgeVLMError(f"cannot import {modules}: {last}")
    return float(done.stdout.split()[-1]) * 1e3
