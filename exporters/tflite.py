"""TFLite for LiteRT: one file with a signature ``tokens_N`` for each length, batch 1, all on one set of weights.

int8-dynamic is ai-edge-quantizer's ``dynamic_wi8_afp32``: signed weights with one scale an output (a row, in the word
embeddings), activations quantized by XNNPACK as it runs, with one scale a row. The others: ``tflite_quantize`` and, for
int8-static, ``tflite_static``.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgelm.errors import ExportFailed
from edgelm.exporters import Report, Tell, check_request, check_size, log, xnnpack
from edgelm.exporters.metadata import described
from edgelm.exporters.quiet import mute, quiet
from edgelm.exporters.tflite_graph import slim
from edgelm.exporters.tflite_quantize import quantized
from edgelm.exporters.tflite_static import calibrated
from edgelm.exporters.trial import try_out
from edgelm.manifest import Int8, Precision
from edgelm.model import Encoder
from edgelm.runtimes import Ids

_NOISY = ("torchao", "torch.utils._pytree")
os.environ.setdefault("LITERT_TORCH_SHOW_PROGRESS", "n")  # its progress goes to standard output
with mute(), quiet(*_NOISY):
    import litert_torch

__all__ = ["ENGINE", "PRECISIONS", "export"]

ENGINE = "litert"
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8-dynamic", "int8-static", "int4-weights")


def export(
    model: Encoder,
    precisions: Sequence[Precision],
    lengths: Sequence[int],
    *,
    calibration: Sequence[Ids] | None = None,
    int8: Int8 = "u8s7",
    tell: Tell = log,
) -> dict[Precision, bytes]:
    """Write a model as TFLite in each precision; see ``edgelm.exporters.Exporter``.

    There is one signature for each of ``lengths``. Integer products are of signed bytes, whatever ``int8`` says.
    """
    check_request("tflite", PRECISIONS, model, precisions, lengths, calibration)
    check_size("tflite", model)
    started = time.perf_counter()
    exported = _converted(model, lengths)
    artifacts = dict[Precision, bytes]()
    for precision in precisions:
        made, notes = _written(exported, precision, calibration)
        artifact, nodes = slim(made, metadata=described(model, precision))
        shapes = tuple((1, length) for length in sorted(set(lengths)))
        try_out(artifact, f"tflite {precision}", shapes, model.head, by=ENGINE)
        artifacts[precision] = artifact
        seconds = time.perf_counter() - started
        tell(Report("tflite", precision, len(artifact), nodes, seconds, notes, xnnpack.phrase(artifact)))
        started = time.perf_counter()
    return artifacts


def _written(exported: bytes, precision: Precision, calibration: Sequence[Ids] | None) -> tuple[bytes, tuple[str, ...]]:
    """A model in a precision, and what is to be said of it."""
    if precision == "fp32":
        return exported, ()
    if precision == "int8-static":
        return calibrated(exported, calibration or ())
    return quantized(exported, precision)


class _Named(nn.Module):
    """Gives the output its name, and takes the inputs as keywords, which is where theirs come from."""

    def __init__(self, model: Encoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        return {self.model.head.OUTPUT: self.model(input_ids, attention_mask)}


def _converted(model: Encoder, lengths: Sequence[int]) -> bytes:
    shared = {id(parameter): parameter for parameter in model.parameters()}
    module = _Named(copy.deepcopy(model, shared)).eval()
    converter = litert_torch
    for length in sorted(set(lengths)):
        inputs = {name: torch.ones(1, length, dtype=torch.int32) for name in ("input_ids", "attention_mask")}
        converter = converter.signature(f"tokens_{length}", module, sample_kwargs=inputs)
    try:
        with quiet(*_NOISY):
            converted = converter.convert()
        with mute():
            content: bytes = converted.model_content()
    except Exception as exc:  # it passes on whatever torch.export and MLIR raise
        raise ExportFailed(f"tflite fp32: litert-torch does not convert the model: {exc}") from exc
    return content
