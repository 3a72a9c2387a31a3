"""What README.md installs on a device, but for aarch64: the published wheels, under the versions of constraints.txt."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.arm64.commands import CannotCheckError, CommandError, output
from tests.support.repository import ROOT

LISTS = (ROOT / "device-requirements.txt", ROOT / "constraints.txt")
REQUIREMENTS = ("--no-deps", "-r", LISTS[0], "onnxruntime")
"""Of the device's line all but our own two distributions, which are taken from where they stand."""
OLDEST = 17
"""glibc 2.17, the oldest that aarch64 wheels are made for."""


def install(into: Path, python: str, glibc: tuple[int, int]) -> tuple[str, ...]:
    """Unpack the wheels into `into`, for Python `python` and systems up to `glibc`: names with versions.

    Raises `CannotCheckError` where pip cannot get one of them.
    """
    major, minor = glibc
    tags = [f"manylinux_{major}_{number}_aarch64" for number in range(OLDEST, minor + 1)] + ["manylinux2014_aarch64"]
    platform = [part for tag in tags for part in ("--platform", tag)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    target: list[str | Path] = ["--target", into, "--python-version", python, "--implementation", "cp"]
    try:
        output([*pip, *target, *platform, "--only-binary", ":all:", *REQUIREMENTS])
    except CommandError as error:
        raise CannotCheckError(f"pip could not get the aarch64 wheels: {error}") from error
    return tuple(sorted(folder.name.removesuffix(".dist-info") for folder in into.glob("*.dist-info")))
