"""A machine that has never seen edgevlm: a clone, an empty home, no cache, environments with nothing but pip in them.

What leads Python to other environments stays behind; the machine's own pip configuration does not. Nothing but our own
distributions may be built. The clone's path has a space in it and the locale is C, as it may be anywhere.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.repository import ROOT, clone_to

README = (ROOT / "README.md").read_text(encoding="utf-8")
LEFT_BEHIND = re.compile(r"PYTHON(PATH|HOME)|VIRTUAL_ENV|PIP_CACHE_DIR|HF_.*|XDG_.*|LANG.*|LC_.*|MAKE.*|MFLAGS")
BOOTSTRAP = {"pip", "setuptools"}
"""What `python -m venv` itself puts into an environment."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One environment of its own, and the clone it was installed from."""

    clone: Path
    environment: Path
    variables: dict[str, str]

    @property
    def scripts(self) -> Path:
        return self.environment / ("Scripts" if os.name == "nt" else "bin")

    @property
    def site_packages(self) -> Path:
        """Where packages are."""
        return Path(self.python("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())

    def run(self, *command: object, cwd: Path | None = None, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """A command that must end with `expect`, as a shell with the environment activated would run it."""
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd or self.clone,
            env={**self.variables, "PATH": f"{self.scripts}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == expect, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def python(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return self.run(self.scripts / "python", "-I", *arguments)

    def installed(self) -> set[str]:
        """Names of the distributions, but those of `BOOTSTRAP`."""
        listed = json.loads(self.run("pip", "list", "--format", "json").stdout)
        return {re.sub(r"[-_.]+", "-", one["name"]).lower() for one in listed} - BOOTSTRAP


def readme_block(kind: str) -> str:
    """The shell block of README.md that is installed with here."""
    found = re.search(rf"<!-- not run: tests/fresh does, [^>]*\({kind}\) -->\n```bash\n(.*?)```", README, re.DOTALL)
    assert found, f"README.md has no block for a {kind}"
    return found[1]


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as it is now."""
    return clone_to(tmp_path_factory.mktemp("fresh") / "a clone")


@pytest.fixture(scope="session")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment variables of somebody with nothing in their home."""
    kept = {name: value for name, value in os.environ.items() if not LEFT_BEHIND.fullmatch(name)}
    home = tmp_path_factory.mktemp("home")
    return {**kept, "HOME": str(home), "LC_ALL": "C", "PIP_NO_CACHE_DIR": "1", "PIP_ONLY_BINARY": ":all:"}


def machine(kind: str, clone: Path, variables: dict[str, str], folder: Path) -> Machine:
    """A new environment in which README.md's block was run."""
    made = Machine(clone, folder / "an environment", variables)
    made.run(sys.executable, "-m", "venv", made.environment)
    made.run("bash", "-e", "-c", readme_block(kind))
    return made


@pytest.fixture(scope="session")
def workstation(clone: Path, variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The workstation install."""
    return machine("workstation", clone, variables, tmp_path_factory.mktemp("workstation"))


@pytest.fixture(scope="session")
def device(clone: Path, variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The device install."""
    return machine("device", clone, variables, tmp_path_factory.mktemp("device"))


@pytest.fixture(scope="session")
def camera(clone: Path, variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The install of a device that watches and serves."""
    return machine("camera", clone, variables, tmp_path_factory.mktemp("camera"))


@pytest.fixture(scope="session")
def demonstration(workstation: Machine, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What `make demo` runs, in the workstation: what it printed, and its folder."""
    folder = tmp_path_factory.mktemp("demonstration") / "an out"
    return workstation.python("-m", "edgevlm.demo", "--out", folder).stdout, folder


@pytest.fixture(scope="session")
def bundle(demonstration: tuple[str, Path]) -> Path:
    """The int8 bundle that the workstation exported for it."""
    return demonstration[1] / "inspector-int8"


@pytest.fixture(scope="session")
def picture(demonstration: tuple[str, Path]) -> Path:
    """A part with a scratch that the workstation drew for it."""
    return demonstration[1] / "scratched.png"
