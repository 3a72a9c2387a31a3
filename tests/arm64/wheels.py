"""What a device installs beside the runtime: the published aarch64 wheels, under the versions of constraints.txt."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from tests.arm64.commands import CannotCheckError, CommandError, output

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
OLDEST = 17
"""glibc 2.17, the oldest that aarch64 wheels are made for."""


def requirements() -> list[str]:
    """What `pip install './runtime[cpu]'` asks for."""
    project = tomllib.loads((ROOT / "runtime" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["cpu"]]


def install(into: Path, python: str, glibc: tuple[int, int]) -> tuple[str, ...]:
    """Unpack the wheels into `into`, for Python `python` and systems up to `glibc`: names with versions.

    Raises `CannotCheckError` where pip cannot get one of them.
    """
    major, minor = glibc
    tags = [f"manylinux_{major}_{number}_aarch64" for number in range(OLDEST, minor + 1)] + ["manylinux2014_aarch64"]
    platform = [part for tag in tags for part in ("--platform", tag)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    target: list[str | Path] = [
        "--target",
        into,
        "--python-version",
        python,
        "--implementation",
        "cp",
        "--only-binary",
        ":all:",
    ]
    try:
        output([*pip, *target, *platform, "--constraint", CONSTRAINTS, *requirements()])
    except CommandError as error:
        raise CannotCheckError(f"pip could not get the aarch64 wheels: {error}") from error
    return tuple(sorted(folder.name.removesuffix(".dist-info") for folder in into.glob("*.dist-info")))
