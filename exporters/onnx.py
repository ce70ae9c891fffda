"""ONNX for ONNX Runtime: one file for any batch and length, standard operators only, but for int4-weights.

fp32 is torch.onnx's export at opset 23, with one ``Attention`` operator a layer. The other precisions are made of
it, each by the module of its name.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Sequence
from typing import Any

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn

from edgelm.errors import ExportFailed
from edgelm.exporters import Report, Tell, check_request, log
from edgelm.exporters.calibrate import calibrate
from edgelm.exporters.metadata import NAME, described
from edgelm.exporters.onnx_dynamic import dynamic
from edgelm.exporters.onnx_graph import quantize_embedding_, split_gemms_, sum_residuals_, tidy_
from edgelm.exporters.onnx_half import half
from edgelm.exporters.onnx_int4 import int4
from edgelm.exporters.onnx_pieces import check, serialized
from edgelm.exporters.onnx_static import static
from edgelm.exporters.overflow import overflowing, probes
from edgelm.exporters.quiet import quiet
from edgelm.exporters.simplify import simplified
from edgelm.exporters.trial import try_out
from edgelm.manifest import Int8, Precision
from edgelm.model import Encoder
from edgelm.runtimes import Ids

__all__ = ["ENGINE", "OPSET", "PRECISIONS", "export"]

ENGINE = "onnxruntime"
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8-dynamic", "int8-static", "int4-weights")
OPSET = 23
"""The first with an ``Attention`` operator."""


def export(
    model: Encoder,
    precisions: Sequence[Precision],
    lengths: Sequence[int],
    *,
    calibration: Sequence[Ids] | None = None,
    int8: Int8 = "u8s7",
    tell: Tell = log,
) -> dict[Precision, bytes]:
    """Write a model as ONNX in each precision; see ``edgelm.exporters.Exporter``.

    Any batch and any length up to ``max(lengths)`` can be run; position embeddings beyond that are left out.
    """
    check_request("onnx", PRECISIONS, model, precisions, lengths, calibration)
    limit, started = max(lengths), time.perf_counter()
    exported, notes = simplified(_converted(model, limit), limit, model.config.vocab_size)
    sum_residuals_(exported)
    artifacts = dict[Precision, bytes]()
    for precision in precisions:
        made, said = _written(exported, precision, model, limit, calibration, int8)
        artifacts[precision] = _checked(made, precision, model, limit)
        seconds, started = time.perf_counter() - started, time.perf_counter()
        tell(Report("onnx", precision, len(artifacts[precision]), len(made.graph.node), seconds, (*notes, *said)))
        notes = ()  # it is about the graph that all of them share
    return artifacts


def _written(
    exported: ModelProto,
    precision: Precision,
    model: Encoder,
    limit: int,
    calibration: Sequence[Ids] | None,
    int8: Int8,
) -> tuple[ModelProto, tuple[str, ...]]:
    """A model in a precision, and what is to be said of it."""
    if precision == "fp32":
        return exported, ()
    if precision == "fp16":
        kept = overflowing(exported, probes(model.config.vocab_size, limit) if calibration is None else calibration)
        note = f"left in float32, where float16 would overflow: {', '.join(kept)}"
        return half(exported, kept), (note,) if kept else ()
    if precision == "int4-weights":
        return int4(exported), ()
    rest = copy.deepcopy(exported)
    quantize_embedding_(rest)
    if precision == "int8-dynamic":
        return dynamic(rest, int8), ()
    split_gemms_(rest)
    found = calibrate(model, calibration or ())
    linears = ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear))
    weights = {name: module.weight.detach().numpy() for name, module in linears}
    return static(rest, weights, found, int8), found.notes


class _Attention(nn.Module):
    """An attention sublayer written with ONNX's own operator, which takes the heads side by side in 3-D.

    ONNX Runtime's kernel needs the mask to have the rows of the queries: [batch, 1, rows, tokens]. They come from a sum
    with zeros, since a shape that the graph computes would be computed on the CPU, also where all else is on a GPU.
    """

    def __init__(self, trained: Any, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.q, self.k, self.v, self.out, self.heads = trained.q, trained.k, trained.v, trained.out, trained.heads

    def forward(self, queries: Tensor, x: Tensor, bias: Tensor) -> Tensor:
        rows = bias if self.stride == 1 else bias[..., :: self.stride]
        mask = bias if queries.shape[1] == 1 else bias + 0.0 * rows.squeeze(2).unsqueeze(3)
        q, k, v = self.q(queries), self.k(x), self.v(x)
        mixed = torch.onnx.ops.attention(q, k, v, mask, q_num_heads=self.heads, kv_num_heads=self.heads)[0]
        out: Tensor = self.out(mixed)
        return out


def _twin(model: Encoder, limit: int) -> Encoder:
    """The same weights in a module that exports well; the model itself stays as it is."""
    twin = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()}).eval()
    for index, layer in enumerate(twin.layers):
        if layer.attention.heads:
            setattr(layer, "attention", _Attention(layer.attention, model.config.stride(index)))  # noqa: B010 - it is not of the declared type
    positions = nn.Embedding(limit, model.config.dim)
    positions.weight = nn.Parameter(model.embeddings.position.weight.detach()[:limit])
    twin.embeddings.position = positions
    return twin


def _converted(model: Encoder, limit: int) -> ModelProto:
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens", max=limit)
    ids, mask = (torch.ones(2, min(7, limit), dtype=torch.int32) for _ in range(2))  # two: one would be merged
    shapes = {0: batch, 1: tokens}
    try:
        with quiet("torch.onnx._internal.exporter._registration"):
            # both inputs have the same batch and tokens, which is what was meant
            warnings.filterwarnings("ignore", "# The axis name: .* will not be used", UserWarning)
            program = torch.onnx.export(
                _twin(model, limit),
                (ids, mask),
                input_names=["input_ids", "attention_mask"],
                output_names=[model.head.OUTPUT],
                opset_version=OPSET,
                dynamic_shapes=(shapes, shapes),
                dynamo=True,
                verbose=False,
            )
    except Exception as exc:  # it passes on whatever torch.export raises
        raise ExportFailed(f"onnx fp32: torch.onnx does not convert the model: {exc}") from exc
    assert program is not None  # it is None without dynamo only
    proto: ModelProto = program.model_proto
    tidy_(proto)
    return proto


def _checked(made: ModelProto, precision: Precision, model: Encoder, limit: int) -> bytes:
    onnx.helper.set_model_props(made, {NAME: described(model, precision)})
    artifact = serialized(made)
    try:
        check(made, artifact)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise ExportFailed(f"onnx {precision}: the ONNX checker refuses what was exported: {exc}") from exc
    try_out(artifact, f"onnx {precision}", ((1, 2), (1, limit), (3, min(5, limit))), model.head, by=ENGINE)
    return artifact
