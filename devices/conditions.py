"""What the machine is like at this moment: clock, temperature, load, memory, power. Linux in full, others in part."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import psutil

from edgelm.devices import cpu
from edgelm.runs import Conditions

__all__ = ["now"]

_ROOT = Path("/")
_OF_THE_PROCESSOR = re.compile(r"cpu|core|pkg|soc|k10temp|zenpower|tctl", re.IGNORECASE)
_IDLE = ("idle", "iowait", "steal", "guest", "guest_nice")  # guests are counted in user and nice too


def now(root: Path = _ROOT) -> Conditions:
    """Look at the machine.

    Args:
        root: where ``/proc`` and ``/sys`` are looked up.
    """
    times, own = psutil.cpu_times(), psutil.Process().cpu_times()
    return Conditions(
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        clock_s=time.monotonic(),
        load=psutil.getloadavg()[0],
        governors=tuple(sorted({text for text in _cpufreq(root, "scaling_governor") if text})),
        mhz=_mhz(root),
        celsius=_celsius(root),
        throttled=_throttled(root),
        quota=cpu.quota(root),
        memory_bytes=int(psutil.virtual_memory().available),
        power=_power(),
        busy_s=sum(value for name, value in times._asdict().items() if name not in _IDLE),
        stolen_s=getattr(times, "steal", None),
        own_s=own.user + own.system,
    )


def _folders(root: Path) -> Iterator[Path]:
    """The folder of each logical processor that this process may use."""
    for number in sorted(cpu.allowed() or range(os.cpu_count() or 1)):
        yield root / f"sys/devices/system/cpu/cpu{number}"


def _cpufreq(root: Path, name: str) -> Iterator[str]:
    for folder in _folders(root):
        yield cpu.read(folder / "cpufreq" / name).strip()


def _mhz(root: Path) -> float | None:
    """Mean clock; of a virtual machine, the one that its host states."""
    clocks = [int(text) / 1e3 for text in _cpufreq(root, "scaling_cur_freq") if text.isdigit()]
    clocks = clocks or [float(text) for text in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", _cpuinfo(root), re.MULTILINE)]
    return statistics.fmean(clocks) if clocks else None


def _cpuinfo(root: Path) -> str:
    return cpu.read(root / "proc/cpuinfo")


def _celsius(root: Path) -> float | None:
    """The hottest of the thermal zones and hardware monitors that are of the processor."""
    zones = ((zone / "type", [zone / "temp"]) for zone in root.glob("sys/class/thermal/thermal_zone*"))
    monitors = ((monitor / "name", monitor.glob("temp*_input")) for monitor in root.glob("sys/class/hwmon/hwmon*"))
    texts = [
        cpu.read(file).strip()
        for name, files in (*zones, *monitors)
        if _OF_THE_PROCESSOR.search(cpu.read(name))
        for file in files
    ]
    return max((int(text) / 1e3 for text in texts if text.isdigit()), default=None)


def _throttled(root: Path) -> int | None:
    """Intel's counters, of each core and of the package."""
    names = ("core_throttle_count", "package_throttle_count")
    texts = [cpu.read(folder / "thermal_throttle" / name).strip() for folder in _folders(root) for name in names]
    counts = [int(text) for text in texts if text.isdigit()]
    return sum(counts) if counts else None


def _power() -> Literal["mains", "battery"] | None:
    """Where the power comes from, of a machine that has a battery."""
    battery = getattr(psutil, "sensors_battery", lambda: None)()
    if battery is None or battery.power_plugged is None:
        return None
    return "mains" if battery.power_plugged else "battery"
