"""One input, and whether what came of it is a finding."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import re
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType

from edgevlm_runtime.errors import EdgeVLMError

CPU_SECONDS = 10
"""What one input may take. The slowest honest one, a picture of the greatest size allowed, takes two."""
MEMORY_BYTES = 3 << 30
"""What one input may take beside what was there before."""


class WrongOutcome(Exception):
    """Raised by a target for an outcome that is wrong without an exception: `WrongOutcome(kind, details)`."""


class TooLong(BaseException):
    """The bound on time; nobody who catches `Exception` stops it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A finding: `kind` is equal for inputs that fail in the same place."""

    kind: str
    details: str

    @property
    def name(self) -> str:
        """A name for a file."""
        short = re.sub(r"[^a-z0-9]+", "-", self.kind.lower()).strip("-")[:50]
        return f"{short}-{hashlib.sha256(self.kind.encode()).hexdigest()[:8]}"


def judge(run: Callable[[bytes], None], data: bytes) -> Fault | None:
    """Run one input within the bounds on time; None where it succeeds or is refused in the project's own words."""
    start = time.process_time()
    try:
        with _bounded():
            run(data)
    except KeyboardInterrupt:
        raise
    except EdgeVLMError as error:
        hidden = next((cause for cause in _causes(error) if isinstance(cause, (MemoryError, TooLong))), None)
        if hidden is not None:
            return _fault(hidden)
    except BaseException as error:  # noqa: BLE001 (panics of native libraries are no Exceptions)
        return _fault(error)
    if time.process_time() - start > CPU_SECONDS:
        return Fault("too long", "the bound on time was swallowed")
    return None


def limit_memory(extra: int = MEMORY_BYTES) -> None:
    """From now on this process may have `extra` bytes of address space more."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + extra
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Time of the processor, not of the clock: others may be busy here."""
    before = signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS, 1)  # again and again: a handler of theirs may swallow one
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_IGN)  # drops one that is under way: by default it ends the process
        signal.signal(signal.SIGPROF, before)


def _stop(number: int, frame: FrameType | None) -> None:
    raise TooLong(f"more than {CPU_SECONDS} s of processor time")


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


@cache
def _ours() -> tuple[Path, ...]:
    """Where the three distributions' sources are."""
    specs = map(importlib.util.find_spec, ("edgevlm", "edgevlm_runtime", "edgevlm_export"))
    return tuple(Path(spec.origin).parent for spec in specs if spec is not None and spec.origin is not None)


def _fault(error: BaseException) -> Fault:
    """Named by the exception and the innermost frame of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if any(Path(frame.filename).is_relative_to(folder) for folder in _ours())]
    place = f"{Path(ours[-1].filename).stem} {ours[-1].name}" if ours else "outside"
    if isinstance(error, WrongOutcome):
        place = str(error.args[0])
    return Fault(f"{type(error).__name__} in {place}", "".join(traceback.format_exception(error)[-12:]))
