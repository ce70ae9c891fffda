"""ONNX Runtime's execution providers: which device each is for, which package brings it, and where it exists."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgelm.runtimes.place import Place

__all__ = ["PROVIDERS", "Provider", "missing"]


@dataclass(frozen=True)
class Provider:
    """An execution provider.

    Attributes:
        name: as ONNX Runtime spells it.
        package: what brings it, as pip takes it.
        system: the only one that it exists on, as ``platform.system()`` spells it; empty for any.
        nvidia: needs a GPU of NVIDIA and its driver.
        needs: what pip does not bring.
        numbered: whether there can be several, chosen by ``device_id``.
        settings: what it is told besides.
        host: kinds of nodes that it has kernels for, and that ONNX Runtime gives to the CPU nevertheless where they
            compute shapes, which are in the host's memory anyway; these are not held against it.
    """

    name: str
    package: str = "onnxruntime"
    system: str = ""
    nvidia: bool = False
    needs: str = ""
    numbered: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    host: frozenset[str] = frozenset()

    @property
    def cure(self) -> str:
        """The line that brings it, and what pip does not bring."""
        return f"pip install '{self.package}'" + (f", with {self.needs}" if self.needs else "")

    def options(self, place: Place) -> dict[str, str]:
        """What the provider is told."""
        # the first is taken anyway; told its number, ONNX Runtime 1.31 looks for a plugin and warns that there is none
        return {**({"device_id": str(place.number)} if self.numbered and place.number else {}), **self.settings}


_NVIDIA = "onnxruntime-gpu[cuda,cudnn]"
PROVIDERS = {
    "coreml": Provider("CoreMLExecutionProvider", system="Darwin"),
    "cpu": Provider("CPUExecutionProvider"),
    "cuda": Provider(
        "CUDAExecutionProvider",
        _NVIDIA,
        nvidia=True,
        needs="an NVIDIA driver",
        numbered=True,
        settings={"use_tf32": "0"},  # fp32 means fp32: TF32 has no more digits than fp16, which is asked for by name
        host=frozenset({"Concat", "Gather", "Slice", "Squeeze", "Unsqueeze"}),
    ),
    "directml": Provider("DmlExecutionProvider", "onnxruntime-directml", "Windows", numbered=True),
    "openvino": Provider("OpenVINOExecutionProvider", "onnxruntime-openvino"),
    "qnn": Provider("QNNExecutionProvider", "onnxruntime-qnn<2", "Windows", needs="a Qualcomm NPU"),
    "tensorrt": Provider(
        "TensorrtExecutionProvider",
        f"{_NVIDIA}' 'tensorrt",
        nvidia=True,
        needs="an NVIDIA driver",
        numbered=True,
    ),
}
"""By device. https://onnxruntime.ai/docs/execution-providers has each one's needs."""


def missing(device: str, available: Sequence[str], version: str) -> str | None:
    """Why a device's provider cannot be used here, with the cure; None when it can be tried.

    Args:
        device: a key of ``PROVIDERS``.
        available: the providers that the installed ONNX Runtime was built with.
        version: of the installed ONNX Runtime.
    """
    wanted = PROVIDERS[device]
    if wanted.name in available:
        return None
    here = f"ONNX Runtime {version} has {', '.join(available)}, not {wanted.name}"
    if wanted.system not in ("", platform.system()):
        return f"{here}, which exists on {wanted.system} alone, and this is {platform.system()}: ask for device 'cpu'"
    lacks = f", and {wanted.needs}" if wanted.needs else ""
    if wanted.nvidia and Path("/proc/driver/nvidia/version").exists():
        lacks = ""
    return f"{here}: pip uninstall -y onnxruntime && pip install '{wanted.package}'{lacks}"
