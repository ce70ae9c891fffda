"""Where a model runs: the names of devices, and what is asked of one."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from edgelm.errors import DeviceUnavailable

__all__ = ["CPU", "DEVICES", "Place", "parse"]

DEVICES = ("auto", "coreml", "cpu", "cuda", "directml", "openvino", "qnn", "tensorrt", "xnnpack")
"""Names that ``parse`` knows without asking the engines; engines of others may bring more."""

_NUMBERED = ("cuda", "directml", "tensorrt")
_MEANT = {"dml": "directml", "gpu": "cuda", "npu": "qnn", "nvidia": "cuda", "trt": "tensorrt"}


@dataclass(frozen=True)
class Place:
    """A device to run on.

    Attributes:
        device: its name.
        number: which of several, from 0.
        allow_cpu_ops: what the device cannot compute may run on the CPU instead.
    """

    device: str = "cpu"
    number: int = 0
    allow_cpu_ops: bool = False

    def __str__(self) -> str:
        return f"{self.device}:{self.number}" if self.number else self.device


CPU = Place()


def parse(text: str, *, allow_cpu_ops: bool = False, others: tuple[str, ...] = ()) -> Place:
    """A device as it is named on the command line: ``cpu``, ``cuda``, ``cuda:1``.

    Args:
        text: the name, with the number after a colon where there can be several.
        allow_cpu_ops: see ``Place``.
        others: names that are known besides ``DEVICES``.

    Raises:
        DeviceUnavailable: there is no such name, or no number can follow it.
    """
    known = sorted({*DEVICES, *others})
    name, colon, number = text.partition(":")
    if name not in known:
        near = _MEANT.get(name.lower()) or next(iter(difflib.get_close_matches(name.lower(), known, n=1)), None)
        hint = f"did you mean '{near}'?" if near else f"expected one of {', '.join(known)}"
        raise DeviceUnavailable(f"no device named '{name}'; {hint}")
    if colon and not (name in _NUMBERED and number.isdecimal()):
        numbered = ", ".join(f"{one}:1" for one in _NUMBERED)
        raise DeviceUnavailable(f"device '{text}': expected a number after the colon of a device such as {numbered}")
    return Place(name, int(number or 0), allow_cpu_ops)
