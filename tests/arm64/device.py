"""The emulated device: made once in a folder of its own, and again when what goes into it has changed."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.arm64 import debian, wheels
from tests.arm64.cores import CORES, Core, make_system

QEMU = "qemu-aarch64-static"
TOOLS = {QEMU: "qemu-user-static", "apt-get": "apt", "apt-cache": "apt", "dpkg-deb": "dpkg"}
"""Programs, and the Debian package of each."""


@dataclass(frozen=True)
class Device:
    """A folder with Python for arm64, what the runtime needs, and a root for each core."""

    folder: Path
    python: str
    """Version of its Python, such as "3.11"."""
    key: str
    """Digest of what it was asked to be."""
    packages: tuple[str, ...]
    wheels: tuple[str, ...]

    @property
    def site_packages(self) -> Path:
        """Where its wheels are."""
        return self.folder / "site-packages"

    def command(self, core: Core, script: Path) -> list[str | Path]:
        """The command that runs `script` on `core`, with no more of this machine's Python than its path names."""
        python = self.folder / core.name / "usr" / "bin" / f"python{self.python}"
        cache = f"pycache_prefix={self.folder / 'pycache'}"
        return [QEMU, "-cpu", core.name, "-L", self.folder / core.name, python, "-I", "-S", "-X", cache, script]


def missing_tools() -> str | None:
    """What has to be installed first, in one line; None where nothing is missing."""
    absent = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if not absent:
        return None
    cores = ", ".join(core.name for core in CORES)
    return f"not checked: {cores}: on Debian or Ubuntu first apt-get install {' '.join(absent)}"


def known_cores() -> list[Core]:
    """The cores that the installed QEMU can emulate."""
    # QEMU lists them and exits with 1, so this is not `commands.output`.
    listed = subprocess.run([QEMU, "-cpu", "help"], capture_output=True, text=True, check=False)
    names = set(listed.stdout.split())
    return [core for core in CORES if core.name in names]


def make_device(home: Path) -> Device:
    """The device in `home`, made where it is not there or was made of something else.

    Raises `CannotCheckError` where packages or wheels cannot be had.
    """
    folder, key = home / "device", _key()
    if (made := _read(folder)) is not None and made.key == key:
        return made
    print("Making an arm64 root: about 80 MB of packages and wheels are fetched, once", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=home, prefix="making-") as scratch:
        made = _build(Path(scratch, "device"), Path(scratch, "apt"), key)
        shutil.rmtree(folder, ignore_errors=True)
        made.folder.rename(folder)
    return replace(made, folder=folder)


def _build(folder: Path, scratch: Path, key: str) -> Device:
    folder.mkdir()
    unpacked = debian.unpack(folder / "debian", scratch)
    installed = wheels.install(folder / "site-packages", unpacked.python, unpacked.glibc)
    for core in CORES:
        make_system(core, folder / "debian", folder / core.name)
    device = Device(folder, unpacked.python, key, unpacked.packages, installed)
    (folder / "made.json").write_text(json.dumps({**asdict(device), "folder": "."}, indent=1), encoding="utf-8")
    return device


def _read(folder: Path) -> Device | None:
    """The device that was made in `folder`."""
    try:
        made = json.loads((folder / "made.json").read_text(encoding="utf-8"))
        return Device(**{**made, "folder": folder})
    except (OSError, ValueError, TypeError):
        return None


def _key() -> str:
    """Changes with whatever the device is made of."""
    makers = ("cores.py", "debian.py", "device.py", "wheels.py")
    digest = hashlib.sha256()
    for source in (*wheels.LISTS, *(Path(__file__).with_name(name) for name in makers)):
        digest.update(source.read_bytes())
    return digest.hexdigest()
