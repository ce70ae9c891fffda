"""Energy, where the machine tells it: Intel's and AMD's counters, current sensors on boards, a battery that empties."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgelm.devices import cpu

__all__ = ["Meter", "meter"]

_ROOT = Path("/")
_SENSORS = re.compile(r"ina\d+\w*")
_WHOLE = ("VDD_IN", "POM_5V_IN")
"""What NVIDIA's boards call the channel of the whole module."""


@dataclass
class Meter:
    """Reads energy or power.

    Attributes:
        source: what is read, and what of the machine that covers.
        counts: it counts joules by itself; otherwise it shows watts, to be read again and again.
    """

    source: str
    counts: bool
    _files: tuple[tuple[Path, ...], ...]
    _scale: float
    _wraps: tuple[int, ...] = ()
    _last: list[int] = field(default_factory=list)
    _total: float = 0.0

    def watts(self) -> float:
        """Power now, of a meter that does not count: the sum over its channels of the product of what it reads."""
        found = 0.0
        for files in self._files:
            product = 1.0
            for file in files:
                product *= _integer(file) or 0
            found += product * self._scale
        return found

    def joules(self) -> float:
        """Energy since the first call, of a meter that counts; its counters wrap around."""
        now = [_integer(file) or 0 for (file,) in self._files]
        if self._last:
            steps = zip(now, self._last, self._wraps, strict=True)
            self._total += sum((new - old) if new >= old else (new - old + wrap) for new, old, wrap in steps)
        self._last = now
        return self._total * self._scale


def meter(root: Path = _ROOT) -> Meter | str:
    """What this machine tells its energy by, or why it does not.

    Args:
        root: where ``/sys`` is looked up.

    Returns:
        The first that there is of: RAPL counters, a current sensor (INA) of a board, a battery that is being emptied.
        Otherwise the reason, as it follows "not available, because".
    """
    counters = [folder for folder in sorted(root.glob("sys/class/powercap/*-rapl:*")) if folder.name.count(":") == 1]
    if counters:
        files = tuple((folder / "energy_uj",) for folder in counters)
        if any(_integer(file) is None for (file,) in files):
            return f"only root may read the counters of the processor, /{files[0][0].relative_to(root)}"
        wraps = tuple(_integer(folder / "max_energy_range_uj") or 2**32 for folder in counters)
        return Meter("RAPL counters of the processor", True, files, 1e-6, wraps)
    for folder in sorted(root.glob("sys/class/hwmon/hwmon*")):
        name = cpu.read(folder / "name").strip()
        if _SENSORS.fullmatch(name) and (channels := tuple(_channels(folder))):
            return Meter(f"the board's current sensor, {name}", False, channels, 1e-6)  # µW, or mV times mA
    return _battery(root)


def _channels(folder: Path) -> Iterator[tuple[Path, ...]]:
    """The files of the channel of the whole board, or of the first one: power, or voltage and current."""
    numbers = sorted(file.name[2:-6] for file in folder.glob("in*_input") if (folder / f"curr{file.name[2:]}").exists())
    whole = [number for number in numbers if cpu.read(folder / f"in{number}_label").strip() in _WHOLE]
    if (folder / "power1_input").exists():
        yield (folder / "power1_input",)
    elif numbers:
        number = (whole or numbers)[0]
        yield (folder / f"in{number}_input", folder / f"curr{number}_input")


def _battery(root: Path) -> Meter | str:
    batteries = [
        folder
        for folder in sorted(root.glob("sys/class/power_supply/*"))
        if cpu.read(folder / "type").strip() == "Battery"
    ]
    if not batteries:
        return "this machine has no RAPL counters, no current sensor and no battery that the system shows"
    battery = batteries[0]
    if cpu.read(battery / "status").strip() != "Discharging":
        return "the battery is being charged: unplug it, and what leaves it is what the machine uses"
    if _integer(battery / "power_now") is not None:
        return Meter("the battery", False, ((battery / "power_now",),), 1e-6)
    if _integer(battery / "current_now") is not None and _integer(battery / "voltage_now") is not None:
        return Meter("the battery", False, ((battery / "current_now", battery / "voltage_now"),), 1e-12)
    return "the battery shows neither its power nor its current"


def _integer(file: Path) -> int | None:
    text = cpu.read(file).strip().removeprefix("-")  # some batteries count what leaves them as negative
    return int(text) if text.isdigit() else None
