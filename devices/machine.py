"""The machine that this process runs on, as a value, and the device profile that fits it best."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from edgelm import devices
from edgelm.devices import cpu
from edgelm.devices.cpu import cores
from edgelm.errors import DeviceUnavailable
from edgelm.manifest import Device, Machine

__all__ = ["cores", "detect", "fingerprint", "machine"]

_PACKAGES = ("edgelm", "numpy", "onnxruntime", "onnxruntime-gpu", "ai-edge-litert", "tokenizers", "torch")


@cache
def machine() -> Machine:
    """This machine. Looked at once a process.

    Returns:
        Architecture, system, processor, extensions, usable physical cores, memory, and the versions of Python,
        edgelm and the engines: of those that are installed, by their metadata, so that none of them is imported.
    """
    return Machine(
        arch=cpu.architecture(),
        system=f"{platform.system()} {platform.release()}".strip(),
        cpu=cpu.name(),
        isa=cpu.isa(),
        cores=cores(),
        memory_bytes=int(psutil.virtual_memory().total),
        versions=_versions(),
        gpus=_gpus(),
    )


def fingerprint(this: Machine) -> str:
    """What stays the same when software changes, as one word: processor, extensions, cores, memory in GiB, GPUs."""
    facts = (this.arch, this.cpu, *this.isa, str(this.cores), str(round(this.memory_bytes / 2**30)), *this.gpus)
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def detect(this: Machine | None = None, board: str | None = None) -> str:
    """The name of the packaged device profile that fits a machine best.

    A board's profile (``raspberry-pi-5``) fits if the device tree names that board. Otherwise a profile of the
    architecture fits if the machine has every extension it asks for; the one that asks for most is best.

    Args:
        this: the machine; this one when not given.
        board: name of the board in the device tree; this machine's when not given.

    Raises:
        DeviceUnavailable: no profile is for this architecture.
    """
    this = this or machine()
    board = cpu.board() if board is None else board
    known = [device for device in map(devices.load, devices.names()) if device.arch == this.arch]
    fitting = [device for device in known if _fits(device, this, board)]
    if not fitting:
        raise DeviceUnavailable(
            f"no device profile for {this.arch}: expected x86_64 or arm64 (32-bit systems have no engine); "
            "write a profile of your own and name its file"
        )
    return max(fitting, key=lambda device: (not _is_family(device), len(device.isa))).name


def _is_family(device: Device) -> bool:
    """Whether the profile is for any machine of an architecture, rather than for one board: its name says so."""
    return device.arch in device.name


def _fits(device: Device, this: Machine, board: str) -> bool:
    """Whether a machine is what the profile describes."""
    if _is_family(device):
        return set(device.isa) <= set(this.isa)
    return _contains(board.lower().split(), device.name.split("-"))


def _contains(words: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether the wanted words stand in the others, next to each other and in order."""
    size = len(wanted)
    return any(list(words[at : at + size]) == list(wanted) for at in range(len(words) - size + 1))


def _gpus() -> tuple[str, ...]:
    """What NVIDIA's driver has, as it numbers them: by the place on the bus."""
    told = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    lines = [line for path in told for line in path.read_text(encoding="utf-8").splitlines()]
    return tuple(line.partition(":")[2].strip() for line in lines if line.startswith("Model:"))


def _versions() -> dict[str, str]:
    """Versions of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
