"""What the peers' parent sides have in common: environments, commands with a log, processes that measure.

The peers' own Pythons import this file as well, and have no edgevlm: that is imported where it is used.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.peers.base import ENVIRONMENT, Measures, PeerError, Room, Task
from benchmarks.peers.state import LOG

REPOSITORY = Path(__file__).resolve().parents[2]
TURN_SECONDS = 900
"""After which a turn is given up."""
_VERSIONS = (
    "import json, sys; from importlib.metadata import version; print(json.dumps({n: version(n) for n in sys.argv[1:]}))"
)


def make_environment(
    room: Room, peer: str, requirements: Sequence[str], shown: Sequence[str], environment: str = ENVIRONMENT
) -> dict[str, str]:
    """A virtual environment with `requirements`, unless it is there; the versions of the packages `shown`."""
    python = room.python(peer, environment)
    if not python.exists():
        venv.create(room.home(peer) / environment, with_pip=True)
    try:
        return versions(python, shown)
    except PeerError:
        run(module(python, "pip", "install", "--quiet", *requirements), room.home(peer) / "install.log")
        return versions(python, shown)


def module(python: Path | None, *arguments: object) -> list[str]:
    """The command that runs a module in the environment of `python`, or in ours."""
    from edgevlm_runtime import child

    return child.command(["-m", *arguments], python)


def versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Installed versions in the environment of `python`. Raises `PeerError` when one is missing."""
    from edgevlm_runtime import child

    words = child.command(["-c", _VERSIONS, *packages], python)
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=_with(None))
    if done.returncode != 0:
        raise PeerError(f"not installed: {_last_line(done.stderr)}")
    found: dict[str, str] = json.loads(done.stdout)
    return found


def run(command: Sequence[object], log: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run a long command, its output in `log`; a build that it starts is bound to `build_jobs`.

    Raises `PeerError` with its last line and where the rest is.
    """
    words = [str(word) for word in command]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        file.write(" ".join(words) + "\n")
        file.flush()
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
                cwd=REPOSITORY,
                env={**_build_bounds(), **_with(environment)},
            )
        except OSError as error:
            raise PeerError(f"cannot run {Path(words[0]).name}: {error.strerror or error}") from error
    if done.returncode != 0:
        last = _last_line(log.read_text(encoding="utf-8", errors="replace"))
        raise PeerError(f"{Path(words[0]).name} ended with {done.returncode}: {last}{LOG}{log})")


def build_jobs() -> int:
    """Compilers that may run at once: one for each core. Without a bound, make starts one for each file."""
    from edgevlm_runtime.engines.cores import physical_cores

    return physical_cores()


def output_of(command: Sequence[object], environment: Mapping[str, str] | None = None) -> tuple[str, str, float]:
    """Standard output and error of a measuring process, and the largest resident set of it in MiB.

    Raises `PeerError` with its last line when it fails or takes more than TURN_SECONDS.
    """
    from edgevlm_runtime import child

    words = [str(word) for word in command]
    process = subprocess.Popen(
        child.command(["-c", _WITH_MEMORY, *words]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=REPOSITORY,
        env=_with(environment),
        start_new_session=True,  # its end takes the engine along
    )
    try:
        stdout, stderr = process.communicate(timeout=TURN_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"{Path(words[0]).name} took more than {TURN_SECONDS} s") from error
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    said, _, memory = stderr.rpartition("\n" + _MARK)
    if process.returncode != 0:
        raise PeerError(f"{Path(words[0]).name} ended with {process.returncode}: {_last_line(said or stderr)}")
    return stdout, said, float(memory) / 1024


@contextmanager
def serving(command: Sequence[object]) -> Iterator[subprocess.Popen[bytes]]:
    """A server, ended when the block ends."""
    words = [str(word) for word in command]
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_with(None)
    ) as running:
        try:
            yield running
        finally:
            running.terminate()


def turn(python: Path | None, peer: str, job: Mapping[str, Any], task: Task) -> Measures:
    """Measure by a peer's `python`, or ours: the child side in the file `peer` gets job and task, prints `Measures`."""
    message = json.dumps({**job, "task": asdict(task)})
    stdout, _, memory = output_of(module(python, f"benchmarks.peers.{peer}", message))
    return read_measures(stdout, memory)


def read_measures(stdout: str, memory: float) -> Measures:
    """The last line a child side printed. Raises `PeerError` when it is something else."""
    try:
        found = json.loads(stdout.strip().splitlines()[-1])
        return Measures(**{**found, "peak_rss_mib": memory})
    except (IndexError, ValueError, TypeError) as error:
        raise PeerError(f"printed no measures: {_last_line(stdout) or 'nothing'}") from error


def _build_bounds() -> dict[str, str]:
    """The bound for builds that are not started here by name: those of pip, through cmake, make or torch."""
    jobs = str(build_jobs())
    return {"CMAKE_BUILD_PARALLEL_LEVEL": jobs, "MAKEFLAGS": f"-j{jobs}", "MAX_JOBS": jobs}


def _with(environment: Mapping[str, str] | None) -> dict[str, str]:
    """The environment of a peer's process: it finds this package by its folder, and reports to nobody."""
    from edgevlm_runtime import child

    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    return child.environment({**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})})


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


_MARK = "peak resident KiB "
_WITH_MEMORY = f"""
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print({chr(10)!r} + {_MARK!r} + str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss), file=sys.stderr, end="")
sys.exit(code if code >= 0 else 128 - code)
"""
