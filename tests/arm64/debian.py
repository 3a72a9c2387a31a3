"""Python for arm64 from Debian's packages: apt finds and checks them, dpkg-deb unpacks them, nothing is installed.

apt works here on a state and a cache of its own, for the architecture arm64 and with nothing installed, so it neither
needs the machine's lock nor root, and takes what a package depends on along. Where packages come from is the
machine's configuration.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.arm64.commands import CannotCheckError, CommandError, output

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""Versions that edgevlm runs on; the first one that apt has is taken."""
BESIDE_PYTHON = ("libstdc++6",)
"""What wheels link to and Python does not."""


@dataclass(frozen=True)
class Unpacked:
    """What was unpacked."""

    python: str
    """Its version, such as "3.11"."""
    glibc: tuple[int, int]
    packages: tuple[str, ...]
    """Names with versions."""


def unpack(into: Path, scratch: Path) -> Unpacked:
    """Unpack Python for arm64 into the folder `into`; `scratch` is apt's own, to be deleted afterwards.

    Raises `CannotCheckError` where apt has no such packages.
    """
    options = _options(scratch)
    complaint = _update(options)
    names = set(output(["apt-cache", *options, "pkgnames", "python3."]).split())
    python = next((version for version in PYTHONS if f"python{version}-minimal" in names), None)
    if python is None:
        raise CannotCheckError(
            f"apt knows no python{PYTHONS[0]} or newer for arm64: it needs sources with arm64 packages, "
            f"and a network{complaint}"
        )
    wanted = (f"python{python}-minimal", f"libpython{python}-stdlib", *BESIDE_PYTHON)
    try:
        output(["apt-get", *options, "--yes", "--download-only", "install", *wanted])
    except CommandError as error:
        raise CannotCheckError(f"apt could not fetch Python for arm64: {error}") from error
    into.mkdir()
    archives = sorted((scratch / "cache" / "archives").glob("*.deb"))
    for archive in archives:
        output(["dpkg-deb", "--extract", archive, into])
    return Unpacked(python, _glibc(archives), tuple(archive.stem for archive in archives))


def _options(scratch: Path) -> list[str]:
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (scratch / folder).mkdir(parents=True)
    installed = scratch / "state" / "status"
    installed.touch()
    settings = {
        "Dir::State": scratch / "state",
        "Dir::State::status": installed,
        "Dir::Cache": scratch / "cache",
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",  # apt's own user may not be able to enter the folder; counts only for root
        "Acquire::Languages": "none",
    }
    return [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]


def _update(options: list[str]) -> str:
    """Fetch the lists of packages. A source without arm64 may fail where another has it: what it said, for later."""
    try:
        output(["apt-get", *options, "update"])
    except CommandError as error:
        return f" ({error})"
    return ""


def _glibc(archives: list[Path]) -> tuple[int, int]:
    for archive in archives:
        if match := re.match(r"libc6_(\d+)\.(\d+)", archive.name):
            return int(match[1]), int(match[2])
    raise CannotCheckError("apt fetched Python for arm64 without libc6: its sources do not look like Debian's")
