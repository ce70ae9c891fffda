"""A float32 TFLite model of other tools, as artifacts: in each precision, by the quantizer of our own, tried out."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ai_edge_litert.tools import flatbuffer_utils

from edgelm.errors import ExportFailed
from edgelm.exporters import Report, Tell, xnnpack
from edgelm.exporters.foreign import Output
from edgelm.exporters.foreign.lookups import quantizable
from edgelm.exporters.tflite_graph import slim
from edgelm.exporters.tflite_quantize import quantized
from edgelm.exporters.tflite_static import calibrated
from edgelm.exporters.trial import try_out
from edgelm.manifest import Precision
from edgelm.runtimes import Ids

__all__ = ["written"]


def written(
    exported: bytes,
    precisions: Sequence[Precision],
    output: Output,
    lengths: Sequence[int],
    *,
    untouched: Precision | None = None,
    calibration: Sequence[Ids] | None,
    tell: Tell,
) -> dict[Precision, bytes]:
    """A model in each precision, as ``edgelm.exporters.Exporter.export`` returns it.

    Args:
        exported: the model, in float32 unless ``untouched`` is all that is asked for, with a signature ``tokens_N``
            for each length.
        precisions: what to write.
        output: of the model.
        lengths: of the signatures.
        untouched: the precision that is the model itself, byte by byte.
        calibration: see ``Exporter.export``.
        tell: is given a report of each artifact.

    Raises:
        DataError: the calibration says too little.
        ExportFailed: the quantizer failed, an artifact does not load and run, or signatures that are to be calibrated
            together are not alike.
    """
    artifacts, started = dict[Precision, bytes](), time.perf_counter()
    for precision in precisions:
        if precision == untouched:
            artifact, notes = exported, tuple[str, ...]()
            nodes = len(flatbuffer_utils.read_model_from_bytearray(bytearray(exported)).subgraphs[0].operators)
        else:
            made, notes = _made(exported, precision, calibration)
            artifact, nodes = slim(made)
        try_out(artifact, f"tflite {precision}", [(1, n) for n in sorted(lengths)], output, by="litert")
        artifacts[precision] = artifact
        seconds, started = time.perf_counter() - started, time.perf_counter()
        tell(Report("tflite", precision, len(artifact), nodes, seconds, notes, xnnpack.phrase(artifact)))
    return artifacts


def _made(exported: bytes, precision: Precision, calibration: Sequence[Ids] | None) -> tuple[bytes, tuple[str, ...]]:
    if precision == "fp32":
        return exported, ()
    known = quantizable(exported)
    if precision != "int8-static":
        return quantized(known, precision)
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(known))
    kinds = [
        [flatbuffer_utils.opcode_to_name(model, one.opcodeIndex) for one in graph.operators]
        for graph in model.subgraphs
    ]
    if any(one != kinds[0] for one in kinds):
        raise ExportFailed(
            "tflite int8-static: expected the same operators in every signature, found others: leave int8-static out"
        )
    return calibrated(known, calibration or ())
