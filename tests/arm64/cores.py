"""The Arm cores that are emulated, and what a process has to see to take itself for running on one.

ONNX Runtime chooses its kernels by two things: the instructions that the system reports (HWCAP, which QEMU answers for
the core it emulates) and the part number in /proc/cpuinfo. Older versions of QEMU show the host's cpuinfo, in which
the processor detection of an Arm build finds nothing and crashes; so each core has a root of its own, which QEMU
looks into before it looks at the host's files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

COUNT = 4
"""Cores of the machine that a process sees; both boards have four."""


@dataclass(frozen=True)
class Core:
    """One core as /proc/cpuinfo of a board with it says."""

    name: str
    """As QEMU calls it."""
    board: str
    variant: str
    part: str
    revision: int
    features: str

    @property
    def dot_product(self) -> bool:
        """Whether it multiplies int8 by the instructions SDOT and UDOT."""
        return "asimddp" in self.features.split()

    @property
    def cpuinfo(self) -> str:
        """The text of /proc/cpuinfo."""
        return "\n".join(
            f"processor\t: {number}\n"
            "BogoMIPS\t: 108.00\n"
            f"Features\t: {self.features}\n"
            "CPU implementer\t: 0x41\n"
            "CPU architecture: 8\n"
            f"CPU variant\t: {self.variant}\n"
            f"CPU part\t: {self.part}\n"
            f"CPU revision\t: {self.revision}\n"
            for number in range(COUNT)
        )


CORES = (
    Core("cortex-a72", "Raspberry Pi 4", "0x0", "0xd08", 3, "fp asimd evtstrm crc32 cpuid"),
    Core(
        "cortex-a76",
        "Raspberry Pi 5",
        "0x4",
        "0xd0b",
        1,
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    ),
)


def make_system(core: Core, debian: Path, into: Path) -> None:
    """Make `into`, the root that QEMU is given (`-L`): the unpacked packages in `debian`, beside it, and the core."""
    into.mkdir()
    for name in ("etc", "lib", "usr"):
        # Newer Debians unpack everything into usr/, and make /lib a link to it elsewhere.
        inside = name if (debian / name).is_dir() else f"usr/{name}"
        (into / name).symlink_to(Path("..", debian.name, inside))
    (into / "proc").mkdir()
    (into / "proc" / "cpuinfo").write_text(core.cpuinfo, encoding="ascii")
    cpus = into / "sys" / "devices" / "system" / "cpu"
    cpus.mkdir(parents=True)
    for name in ("possible", "present", "online"):
        (cpus / name).write_text(f"0-{COUNT - 1}\n", encoding="ascii")
