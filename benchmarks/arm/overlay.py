"""The guest's files once more for each core, with the /proc and /sys that Linux shows on that core.

QEMU takes a path from the folder given by ``-L`` where it exists there, and from the machine where it does not. Without
these files the guest would read the x86 machine's, and onnxruntime crashes when it is imported.

usage: python overlay.py GUEST CORES
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

_V8 = "fp asimd evtstrm crc32 cpuid"
_V82 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"


@dataclass(frozen=True)
class Core:
    """What identifies a core.

    Attributes:
        part: its number in Arm's list, as in MIDR_EL1.
        variant: the major revision.
        revision: the minor revision.
        features: as Linux names them in /proc/cpuinfo.
    """

    part: int
    variant: int
    revision: int
    features: str


# The last is no core: QEMU's own, whose matrix extension (SME) computes wrong 8-bit products. A self-test must find it.
CORES = {
    "cortex-a53": Core(0xD03, 0, 4, _V8),
    "cortex-a72": Core(0xD08, 0, 3, _V8),
    "cortex-a76": Core(0xD0B, 4, 1, _V82),
    "max": Core(0x051, 0, 0, _V82),
}


def files(core: Core) -> dict[str, str]:
    """Content by path, for a machine with one such core."""
    cpu = "sys/devices/system/cpu"
    midr = 0x41 << 24 | core.variant << 20 | 0xF << 16 | core.part << 4 | core.revision
    return {
        "proc/cpuinfo": (
            f"processor\t: 0\nFeatures\t: {core.features}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
            f"CPU variant\t: {core.variant:#x}\nCPU part\t: {core.part:#x}\nCPU revision\t: {core.revision}\n"
        ),
        f"{cpu}/possible": "0\n",
        f"{cpu}/present": "0\n",
        f"{cpu}/online": "0\n",
        f"{cpu}/cpu0/regs/identification/midr_el1": f"{midr:#018x}\n",
    }


def lay(guest: Path, cores: Path) -> None:
    """Make ``cores/NAME`` for each core: links to what is in ``guest``, and the files above."""
    for name, core in CORES.items():
        (cores / name).mkdir(parents=True)
        for entry in guest.iterdir():
            (cores / name / entry.name).symlink_to(entry.resolve())
        for path, content in files(core).items():
            (cores / name / path).parent.mkdir(parents=True, exist_ok=True)
            (cores / name / path).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    lay(Path(sys.argv[1]), Path(sys.argv[2]))
