"""A process watched from outside by strace, native libraries and children included: whom it calls, where it writes.

It lives in a network namespace of its own where the system allows one, so that nothing leaves even if it tries.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

REQUIRED = "EDGEVLM_STRACE_REQUIRED"
"""Set where a watch that cannot be kept is a failure: CI."""
CALLS = (
    "connect,sendto,sendmsg,sendmmsg,"
    "?open,openat,openat2,?creat,?mkdir,mkdirat,?mknod,mknodat,?rename,renameat,renameat2,?link,linkat,?symlink,symlinkat"
)
FOLLOWING = ("--follow-forks", "--output-separately", "--seccomp-bpf")
TELLING = ("--quiet=all", "--decode-fds=path", "--string-limit=4096", f"--trace={CALLS}")
NAMESPACES = (("unshare", "--net"), ("unshare", "--user", "--map-root-user", "--net"), ())
"""Commands that make one; the last makes none."""
LOCAL_LOOKUP = "/nscd/socket"
"""glibc asks its name-service cache here before it reads /etc/passwd; host names go on to the network, and are seen."""
NOWHERE = re.compile(r"/dev/(null|tty|pts/\d+|shm/sem\.[\w-]+)|/proc/\S+|pipe:.*|socket:.*|anon_inode:.*")
"""What a process writes to that is no file, or has no name by the time it is used."""
PLACES = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TMPDIR", "CWD")

HOSTILE = tuple(
    f"{name}.py"
    for name in (
        "colorsys",
        "edgevlm",
        "json",
        "numpy",
        "onnxruntime",
        "secrets",
        "tokenizers",
        "torch",
        "typing_extensions",
    )
)
"""Modules that lie in the current folder, and leave a file `imported` there when they are imported."""

_WRITES = re.compile(r"\b(?:open|openat|openat2|creat)\(.*?O_(?:WRONLY|RDWR|CREAT).*\) = \d+<(.*?)>(?:\(deleted\))?$")
_MAKES = re.compile(r"\b(?:mkdir|mknod|rename|link|symlink)(?:at2?)?\(.*\) = 0$")
_NAMES = re.compile(r'"(/[^"]*)"')
_SENDS = re.compile(r"\b(?:connect|sendto|sendmsg|sendmmsg)\(.*sa_family=AF_(?!UNSPEC)(\w+)")


@dataclass(frozen=True, slots=True)
class Seen:
    """What one process did."""

    returncode: int
    output: str
    """Standard output and error together."""
    calls: tuple[str, ...]
    """Attempts to reach something over a socket, as strace writes them."""
    written: frozenset[str]
    """Files opened for writing, folders made, names given, by absolute path; temporary ones too."""
    left: tuple[str, ...]
    """Files that are in the `PLACES` afterwards, as PLACE/name."""


class Watch:
    """A user's machine: `PLACES` that are empty, but for `HOSTILE` in the current folder, and nothing else set."""

    def __init__(self, folder: Path) -> None:
        namespace, watch = _prefix()
        self.isolated = bool(namespace)
        """Whether it is in a network namespace of its own. If not, what it sends is sent."""
        self._wrap = [*namespace, *watch, "-o", str(folder / "log")]
        self._log = folder / "log"
        self.places = {name: folder / name.lower() for name in PLACES}
        for place in self.places.values():
            place.mkdir(parents=True)
        for module in HOSTILE:
            (self.places["CWD"] / module).write_text("open('imported', 'a').write(__name__ + ' ')\n", encoding="utf-8")

    def start(self, *arguments: object, **more: str) -> subprocess.Popen[str]:
        """Start Python with `arguments` and `more` in its environment; its standard input is a pipe."""
        environment = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
        environment |= {name: str(place) for name, place in self.places.items() if name != "CWD"}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", **more}
        return subprocess.Popen(
            [*self._wrap, sys.executable, "-P", *map(str, arguments)],
            cwd=self.places["CWD"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: object) -> Seen:
        """Run Python with `arguments` to its end."""
        return self.end(self.start(*arguments))

    def end(self, process: subprocess.Popen[str]) -> Seen:
        """Close its standard input, and wait for it."""
        output, _ = process.communicate(timeout=300)
        written = {name for name in _written(self._lines()) if not NOWHERE.fullmatch(name)}
        return Seen(process.returncode, output, self.calls(), frozenset(written), tuple(sorted(self._left())))

    def calls(self) -> tuple[str, ...]:
        """See `Seen.calls`; so far."""
        return tuple(line for line in self._lines() if _SENDS.search(line) and LOCAL_LOOKUP not in line)

    def _lines(self) -> list[str]:
        """One process after the other: strace writes a file for each, so that no call is torn apart."""
        logs = sorted(self._log.parent.glob("log.*"))
        return [line for log in logs for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]

    def _left(self) -> Iterator[str]:
        for name, place in self.places.items():
            files = (path for path in place.rglob("*") if not path.is_dir() and path.name not in HOSTILE)
            yield from (f"{name}/{path.relative_to(place)}" for path in files)


def _written(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        if found := _WRITES.search(line):
            yield found[1]
        elif _MAKES.search(line):
            yield from _NAMES.findall(line)


@cache
def _prefix() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The command that makes a namespace, if there can be one, and the one that watches.

    Skips the test where nothing can be watched.
    """
    strace = shutil.which("strace")
    why = "strace is not on PATH"
    if strace is not None:
        watch = (strace, *FOLLOWING, *TELLING)
        for namespace in NAMESPACES:
            if shutil.which(next(iter(namespace), strace)) is None:
                continue
            with tempfile.TemporaryDirectory() as folder:
                command = [*namespace, *watch, "-o", f"{folder}/log", "true"]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return namespace, watch
        why = f"strace does not work here: {done.stderr.strip()}"
    if os.environ.get(REQUIRED):
        pytest.fail(f"{why}, and {REQUIRED} is set")
    pytest.skip(f"{why}: nothing else sees what native libraries do")
