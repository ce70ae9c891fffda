"""What the operating system says about the processor: cores, name, extensions. Linux in full, others in part."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path

import psutil

__all__ = ["allowed", "architecture", "board", "cores", "isa", "name", "quota", "read"]

_ROOT = Path("/")
_ARCHITECTURES = {"aarch64": "arm64", "amd64": "x86_64", "arm64": "arm64", "x64": "x86_64", "x86_64": "x86_64"}

# What the kernels of ONNX Runtime (MLAS) and LiteRT (XNNPACK) ask for, in the spelling of /proc/cpuinfo.
_MATTERS = frozenset(
    "amx_bf16 amx_int8 avx avx2 avx512_bf16 avx512_fp16 avx512_vnni avx512bw avx512f avx512vl avx_vnni f16c fma "
    "asimd asimddp asimdhp bf16 fphp i8mm sme sve sve2".split()
)

# CPU implementer and part, from Arm's Main ID Register (MIDR_EL1); names as in util-linux's lscpu.
_PARTS = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd04"): "Cortex-A35",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0a"): "Cortex-A75",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd0d"): "Cortex-A77",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd44"): "Cortex-X1",
    ("0x41", "0xd46"): "Cortex-A510",
    ("0x41", "0xd47"): "Cortex-A710",
    ("0x41", "0xd48"): "Cortex-X2",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4f"): "Neoverse-V2",
    ("0x4e", "0x004"): "Carmel",
}


def architecture(machine: str | None = None) -> str:
    """The instruction set family, with one name on every system.

    Args:
        machine: as the system spells it; this machine's when not given.

    Returns:
        ``x86_64``, ``arm64``, or the system's own word in lower case.
    """
    word = (machine or platform.machine()).lower()
    return _ARCHITECTURES.get(word, word)


def cores(root: Path = _ROOT) -> int:
    """Physical cores that this process may use: within its affinity and its quota, hyper-threads not counted.

    Args:
        root: where ``/proc`` and ``/sys`` are looked up.

    Returns:
        At least 1. A quota of one and a half cores counts as 1, because a second thread would be throttled.
    """
    usable = allowed()
    count = len({_core(root, cpu) for cpu in usable}) if usable else psutil.cpu_count(logical=False) or 1
    return max(1, min([count, *(int(quota) for quota in _quotas(root))]))


def quota(root: Path = _ROOT) -> float | None:
    """Processor time that the control groups of this process allow it, in cores; None without a limit."""
    return min(_quotas(root), default=None)


def name(root: Path = _ROOT) -> str:
    """The processor's name as the system gives it; on ARM Linux, the names of its cores and how many there are."""
    facts = list(_cpuinfo(root))
    # First, because what some ARM systems give as the model ("ARMv8 Processor") or hardware (BCM2835 on every
    # Raspberry Pi) says nothing.
    parts = _parts(facts)
    if parts:
        return " + ".join(parts)
    models = [value for field, value in facts if field == "model name" and value]
    return models[0] if models else platform.processor() or platform.machine() or "unknown"


def isa(root: Path = _ROOT) -> tuple[str, ...]:
    """The extensions that matter to the engines' kernels, sorted, as Linux names them; empty on other systems."""
    for field, value in _cpuinfo(root):
        if field in ("flags", "Features"):
            return tuple(sorted(_MATTERS.intersection(value.split())))
    return ()


def board(root: Path = _ROOT) -> str:
    """The board's name from the device tree (``Raspberry Pi 5 Model B Rev 1.0``); empty where there is none.

    A Mac has none, and is ``Apple silicon`` if it has an ARM processor.
    """
    if platform.system() == "Darwin":
        return "Apple silicon" if architecture() == "arm64" else ""
    return read(root / "proc/device-tree/model").strip("\0\n ")


def read(path: Path) -> str:
    """The text of a file of ``/proc`` or ``/sys``, or nothing when it is not there or may not be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _cpuinfo(root: Path) -> Iterable[tuple[str, str]]:
    """Each ``key: value`` line of ``/proc/cpuinfo``."""
    for line in read(root / "proc/cpuinfo").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            yield key.strip(), value.strip()


def _parts(facts: Iterable[tuple[str, str]]) -> list[str]:
    """The names of an ARM machine's kinds of core, each with how many there are."""
    implementer, counts = "", dict[str, int]()
    for field, value in facts:
        if field == "CPU implementer":
            implementer = value
        elif field == "CPU part":
            part = _PARTS.get((implementer, value), f"ARM {implementer} part {value}")
            counts[part] = counts.get(part, 0) + 1
    return [f"{count}x {part}" for part, count in counts.items()]


def allowed() -> set[int]:
    """Logical processors that this process may run on; empty where the system does not say (macOS, Windows)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return set(affinity(0)) if affinity else set()


def _core(root: Path, cpu: int) -> str:
    """What the hyper-threads of one physical core have in common: the list of their numbers."""
    folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    return read(folder / "thread_siblings_list").strip() or str(cpu)


def _quotas(root: Path) -> Iterable[float]:
    """Limits on processor time, in cores, of the control groups that this process is in and of all that hold them."""
    mount = root / "sys/fs/cgroup"
    for line in read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":  # version 2
            for folder in (*_upward(mount, group), *_upward(mount / "unified", group)):
                yield from _ratio(*(read(folder / "cpu.max").split() or ["max"]))
        elif "cpu" in controllers.split(","):  # version 1
            for folder in (*_upward(mount / "cpu", group), *_upward(mount / controllers, group)):
                quota, period = read(folder / "cpu.cfs_quota_us"), read(folder / "cpu.cfs_period_us")
                yield from _ratio(quota.strip(), period.strip())


def _upward(mount: Path, group: str) -> Iterable[Path]:
    """The folder of a control group and those above it. In a container the group's own folder is often not mounted."""
    parts = [part for part in group.split("/") if part]
    return [mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _ratio(quota: str = "", period: str = "") -> Iterable[float]:
    """Quota over period in cores, if both are numbers: ``max`` and ``-1`` mean that there is no limit."""
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        yield int(quota) / int(period)
