"""A device profile of the machine that this runs on: what it says of itself, and what it was measured to do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from edgelm import devices
from edgelm.bundle import staged
from edgelm.devices import cpu
from edgelm.devices.machine import detect, machine
from edgelm.errors import DataError
from edgelm.manifest import Device, Figure
from edgelm.profile.peak import peak
from edgelm.runs import Peak
from edgelm.schema import to_dict

__all__ = ["described", "peak_of", "toml", "write"]

_ROOT = Path("/")
_PEAKS = {  # of each field of Peak, how its figure is called; thousand millions of it a second
    "fp32_macs": ("fp32 matrix product", "GMAC/s"),
    "int8_macs": ("int8 matrix product", "GMAC/s"),
    "bytes": ("memory bandwidth", "GB/s"),
}
_SIZE = re.compile(r"(\d+)([KM])")


def described(name: str, *, found: Peak | None = None, root: Path = _ROOT) -> Device:
    """A profile of this machine.

    What to write for it, and what to avoid, is taken from the packaged profile that fits best: only a build can tell
    more.

    Args:
        name: of the profile.
        found: what the machine can do; measured when not given.
        root: where ``/sys`` is looked up.

    Raises:
        DeviceUnavailable: no packaged profile is for this architecture.
    """
    this = machine()
    found = found or peak(this.cores)
    like = devices.load(detect(this))
    return Device(
        schema="edgelm.device/1",
        name=name,
        description=f"{cpu.board() or this.cpu}, {this.cores} usable cores, {this.memory_bytes / 2**30:.0f} GiB",
        arch=like.arch,
        isa=this.isa,
        formats=like.formats,
        precisions=like.precisions,
        threads=this.cores,
        width_multiple=like.width_multiple,
        int8=like.int8,
        avoid=like.avoid,
        figures=(*_told(root), *_measured(found)),
    )


def peak_of(device: Device) -> Peak | tuple[str, ...]:
    """What a device can do, by the figures that ``described`` writes; the names of those that its profile lacks.

    Figures of another name are no peaks: what a maker says a memory can do is not what a copy reaches.
    """
    known = {(figure.name, figure.unit): figure.value for figure in device.figures}
    values = {field: 1e9 * known.get(figure, 0.0) for field, figure in _PEAKS.items()}
    lacking = tuple(_PEAKS[field][0] for field, value in values.items() if not value)
    return lacking or Peak(threads=device.threads, **values)


def toml(device: Device) -> str:
    """A profile as the text of a file: keys without a value are left out."""
    plain = {key: value for key, value in to_dict(device).items() if value not in ((), [], None)}
    tables = {key: plain.pop(key) for key in ("avoid", "figures") if key in plain}
    lines = [f"{key} = {_literal(value)}" for key, value in plain.items()]
    for key, entries in tables.items():
        for entry in entries:
            lines += ["", f"[[{key}]]", *(f"{name} = {_literal(value)}" for name, value in entry.items())]
    return "\n".join(lines) + "\n"


def write(out: Path | None) -> Device:
    """Describe this machine, and write the profile to a file if one is named: that is then the profile's name too.

    Raises:
        DataError: the file's name does not end in ``.toml``.
    """
    if out is not None and out.suffix != ".toml":
        raise DataError(f"{out}: expected a name that ends in .toml, which is how --device knows a file from a name")
    found = described(out.stem if out else "this-machine")
    if out is not None:
        with staged(out) as staging:
            staging.write_text(toml(found), encoding="utf-8")
    return found


def _literal(value: object) -> str:
    """A value as TOML: its strings, numbers and lists are written as those of JSON are."""
    return json.dumps(msgspec.to_builtins(value), ensure_ascii=False)


def _told(root: Path) -> Iterator[Figure]:
    """Cores and the caches of the first one."""
    source = "the operating system of the machine itself"
    yield Figure(name="usable cores", value=machine().cores, unit="cores", source=source)
    for folder in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind, level = (cpu.read(folder / name).strip() for name in ("type", "level"))
        size = _SIZE.fullmatch(cpu.read(folder / "size").strip())
        if size and kind != "Instruction":
            count = int(size[1]) * (1024 if size[2] == "M" else 1)
            value, unit = (count // 1024, "MB") if count % 1024 == 0 else (count, "KB")
            yield Figure(name=f"L{level} cache, {kind.lower()}", value=value, unit=unit, source=source)


def _measured(found: Peak) -> Iterator[Figure]:
    day = datetime.now(UTC).date().isoformat()
    words = f"measured by edgelm {version('edgelm')} on {day} with {found.threads} threads"
    engine = f"{words}, ONNX Runtime {version('onnxruntime')}, a product of two large matrices"
    copy = f"{words}, bytes read and written by a copy of 64 MB"
    for field, (name, unit) in _PEAKS.items():
        value = _digits(getattr(found, field) / 1e9)
        yield Figure(name=name, value=value, unit=unit, source=copy if field == "bytes" else engine)


def _digits(value: float) -> float:
    """Three digits: more would be noise."""
    return float(f"{value:.3g}")
