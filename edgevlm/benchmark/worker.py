"""The process of one engine: `python -m edgevlm.benchmark.worker`, driven by `process.EngineProcess`.

One JSON object per line. In comes first the job (`spec`, `task`), then commands; out go `loaded`, one `sample` for each
`ask`, any number of them and then `done` for `sustain`, `memory` for `end`, and `error` instead of any of these.
Nothing else reaches standard output: what libraries print goes to standard error.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib import import_module
from typing import Any

from edgevlm.benchmark.engines import imports_of, load_engine
from edgevlm.benchmark.engines.base import Engine, Sample, Spec
from edgevlm.benchmark.meters import EnergyMeter, clock_mhz, rss_mib, temperature_c
from edgevlm.benchmark.workload import Task
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.peak_memory import peak_rss_mib

log = logging.getLogger(__name__)

Send = Callable[[dict[str, Any]], None]


class Worker:
    """One engine, loaded, and the commands it obeys."""

    def __init__(self, spec: Spec, task: Task, send: Send) -> None:
        self._task = task
        self._send = send
        self._energy = EnergyMeter()
        for module in imports_of(spec.engine, task).split(", "):
            import_module(module)  # timed elsewhere, in a fresh process
        start = time.perf_counter()
        self._engine: Engine = load_engine(spec, task)
        spent = (time.perf_counter() - start) * 1e3
        about = {"precision": self._engine.precision, "model_bytes": self._engine.model_bytes}
        self._send({"loaded": {**about, "load_ms": spent, "rss_mib": rss_mib()}})

    def ask(self, _: dict[str, Any]) -> None:
        """One round."""
        sample, tokens = self._round()
        self._send({"sample": asdict(sample), "token_ids": list(tokens)})

    def sustain(self, command: dict[str, Any]) -> None:
        """Rounds without a pause for `seconds`, each with the time at its end and what the machine says then."""
        start = time.perf_counter()
        elapsed = 0.0
        while elapsed < command["seconds"]:
            sample, _ = self._round()
            elapsed = time.perf_counter() - start
            state = {"at_s": elapsed, "clock_mhz": clock_mhz(), "temperature_c": temperature_c()}
            self._send({"sample": asdict(sample), **state})
        self._send({"done": True})

    def end(self, _: dict[str, Any]) -> None:
        """The last command."""
        self._send({"memory": {"peak_rss_mib": peak_rss_mib()}})

    def _round(self) -> tuple[Sample, tuple[int, ...]]:
        joules = self._energy.start()
        sample, tokens = self._engine.ask(self._task)
        return replace(sample, energy_j=joules()), tokens


def main() -> int:
    """Obey until the input ends. Errors the user can mend are sent; any other ends the process with a traceback."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    job = json.loads(sys.stdin.readline())
    try:
        worker = Worker(Spec(**job["spec"]), Task(**job["task"]), send)
        commands = {"ask": worker.ask, "sustain": worker.sustain, "end": worker.end}
        for line in sys.stdin:
            command = json.loads(line)
            commands[command["do"]](command)
    except EdgeVLMError as error:
        send({"error": str(error)})
    except ModuleNotFoundError as error:
        send({"error": str(error), "missing": error.name})
    except MemoryError:
        send({"error": "not enough memory: measure one engine at a time, or a smaller model"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
