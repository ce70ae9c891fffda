"""Optimum's ONNX export, and its int8 configurations for a kind of processor, dynamic as its command line has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peer import Bind, Request, ort

__all__ = ["PACKAGES", "load", "prepare"]

PACKAGES = ("optimum", "optimum-onnx", "onnxruntime", "transformers", "torch")


def prepare(kind: str, checkpoint: Path, folder: Path, rows: Sequence[Request]) -> None:
    """Export in fp32; for another kind, quantize that export."""
    del rows
    from optimum.onnxruntime import ORTModelForSequenceClassification, ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    if kind == "fp32":
        ORTModelForSequenceClassification.from_pretrained(checkpoint, export=True).save_pretrained(folder)
        return
    configuration = getattr(AutoQuantizationConfig, kind)(is_static=False, per_channel=False)
    quantizer = ORTQuantizer.from_pretrained(folder.parent / "fp32")
    quantizer.quantize(save_dir=folder, quantization_config=configuration)


def load(kind: str, folder: Path, threads: int) -> Bind:
    """By ONNX Runtime alone."""
    del kind
    return ort.bind(folder, threads)
