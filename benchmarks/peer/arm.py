"""What a request costs on emulated ARM cores, of every artifact that runs there; see benchmarks/arm/count.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from arm.count import requested
from edgelm.bundle import Bundle
from peer.ours import export

__all__ = ["DEVICE", "FILES", "TOKENS", "bundle", "count", "variants"]

TOKENS = 32
DEVICE = "generic-arm64"
FILES = {
    ("optimum", "fp32"): "model.onnx",
    ("optimum", "arm64"): "model_quantized.onnx",
    ("olive", "int8"): "made/model.onnx",
    ("litert", "fp32"): "model.tflite",
    ("litert", "int8"): "model.tflite",
}
"""By family and kind, the artifact of those whose engine has a wheel for 64-bit ARM in the lab."""


def bundle(checkpoint: Path, folder: Path) -> Path:
    """edgelm's, for such a core; made once."""
    out = folder / "arm.edgelm"
    if not out.exists():
        folder.mkdir(parents=True, exist_ok=True)
        export(checkpoint, out, device=DEVICE, lengths=(TOKENS,))
    return out


def count(path: Path, detail: str) -> Iterator[dict[str, Any]]:
    """Instructions of one request on each core, and how far the logits are from this machine's.

    Args:
        path: a bundle or an artifact.
        detail: the variant's file, or how many pieces the vocabulary has.

    Raises:
        DeviceUnavailable: it does not run there.
    """
    for core, executed, here, there in requested(path.resolve(), detail, TOKENS):
        difference = float(np.abs(np.subtract(here["logits"], there["logits"])).max())
        yield {"core": core, **executed, "version": there["version"], "max_abs_diff": difference}


def variants(path: Path) -> Iterator[tuple[str, str]]:
    """Of a bundle, ``ENGINE PRECISION`` and the file."""
    return ((f"{one.engine} {one.precision}", one.file) for one in Bundle(path).manifest.variants)
