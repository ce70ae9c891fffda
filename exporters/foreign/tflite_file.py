"""A bare TFLite model: into a bundle as it is or with other signatures, and to ONNX by tf2onnx."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils

from edgelm.errors import CheckpointError, MissingExtra
from edgelm.exporters import Tell, check_request, log
from edgelm.exporters.foreign import PRECISIONS, Foreign, Imported, Output, onnx, tflite
from edgelm.exporters.foreign.adapt import Way, adapted, ways
from edgelm.exporters.foreign.companions import Companions
from edgelm.exporters.foreign.fit import output_name, tried
from edgelm.exporters.foreign.signatures import alone, definition, parsed, signatures
from edgelm.exporters.tflite_graph import packed
from edgelm.manifest import Format, Int8, Precision
from edgelm.model import EncoderConfig
from edgelm.runtimes import Ids, Logits

__all__ = ["read"]

_MATRIX = 1024
"""Constants of fewer numbers are no weights that a precision is told by."""


class _File(Foreign):
    """A TFLite model that LiteRT runs, under the names that it has itself."""

    def __init__(
        self, config: EncoderConfig, output: Output, content: bytes, source: str, original: _Original, weights: int
    ) -> None:
        self.content, self.source, self.original = content, source, original
        self.precision = original.precision
        same: dict[Format, tuple[Precision, ...]] = {form: (self.precision,) for form in PRECISIONS}
        super().__init__(config, output, weights, PRECISIONS if self.precision == "fp32" else same)

    def answer(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        """See ``Foreign``."""
        return self.original.answer(input_ids, attention_mask)

    def export(
        self,
        form: Format,
        precisions: Sequence[Precision],
        lengths: Sequence[int],
        *,
        calibration: Sequence[Ids] | None = None,
        int8: Int8 = "u8s7",
        tell: Tell = log,
    ) -> dict[Precision, bytes]:
        """See ``Foreign``. ONNX is made of the longest signature.

        Raises:
            MissingExtra: TensorFlow, which tf2onnx needs, is not installed.
        """
        check_request(form, self.can[form], self, precisions, lengths, calibration)
        name = self.head.OUTPUT
        model = parsed(self.content, self.source)
        same = all(way.named(name) for way in self.original.ways)
        artifact = self.content if same else adapted(model, self.original.ways, lengths, name)
        if form == "onnx":
            try:
                from edgelm.exporters.foreign import tf_onnx
            except ModuleNotFoundError as exc:
                if (exc.name or "").startswith("edgelm"):
                    raise
                raise MissingExtra(f"{self.source}: converting it to ONNX", "tensorflow") from exc
            made = tf_onnx.from_tflite(alone(artifact, f"tokens_{max(lengths)}"))
            return onnx.written(
                made, precisions, self, max(lengths), rows=True, calibration=calibration, int8=int8, tell=tell
            )
        return tflite.written(
            artifact, precisions, self.head, lengths, untouched=self.precision, calibration=calibration, tell=tell
        )


def read(path: Path, beside: Companions, lengths: Sequence[int]) -> Imported:
    """Read a ``.tflite`` file.

    Args:
        path: the file.
        beside: its tokenizer, task and labels.
        lengths: token lengths that are wanted, of a model that takes any.

    Raises:
        CheckpointError: it is no TFLite model, or has other inputs or another output than its task.
        DataError: labels or tokenizer are not the model's.
    """
    content, source = path.read_bytes(), str(path)
    model = parsed(content, source)
    weights = _weights(model)  # first: the model may be used up
    original = _Original(content, model, ways(model, output_name(beside), source), source)
    fixed = tuple(way.length for way in original.ways if way.length)
    config, given, taken = tried(original.answer, beside, fixed or lengths, source)
    file = _File(config, given, content, source, original, weights)
    return Imported(file, beside.tokenizer, source, len(content), taken, "litert", original.precision)


class _Original:
    """The model as it is, in LiteRT."""

    def __init__(self, content: bytes, model: Any, found: Sequence[Way], source: str) -> None:
        self.ways, self.precision = found, _precision(model, source)
        if not model.signatureDefs:  # LiteRT runs signatures
            model.signatureDefs = [definition(one) for one in signatures(model)]
            content = packed(model)
        self._interpreter = Interpreter(model_content=content, num_threads=1)
        self._runners: dict[str, Any] = {}

    def answer(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        """Each row alone, padded to the next length only where the model takes no other; see ``Foreign``."""
        return np.concatenate([self._row(*row) for row in zip(input_ids, attention_mask, strict=True)])

    def _row(self, ids: Ids, mask: Ids) -> Logits:
        way = next(way for way in self.ways if not way.length or len(ids) <= way.length)
        key, length = way.signature.key, way.length or len(ids)
        given = {name: np.zeros((1, length), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
        given["input_ids"][0, : len(ids)], given["attention_mask"][0, : len(ids)] = ids, mask
        if key not in self._runners:
            self._runners[key] = self._interpreter.get_signature_runner(key)
        feed = {theirs: given[ours].astype(way.dtypes[theirs]) for theirs, ours in way.meaning.items()}
        found: Logits = self._runners[key](**feed)[way.output]
        return found[:, : len(ids)] if found.ndim == 3 else found


def _constants(model: Any) -> list[tuple[str, int]]:
    """Type and count of the constants that are weights; signatures share buffers."""
    found = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            if data is not None and len(data):
                count = math.prod(tensor.shape if tensor.shape is not None else ())
                found[tensor.buffer] = flatbuffer_utils.type_to_name(tensor.type), count
    return [one for one in found.values() if one[0] in ("FLOAT32", "INT8") or one[1] >= _MATRIX]


def _weights(model: Any) -> int:
    return sum(count for _, count in _constants(model))


def _precision(model: Any, source: str) -> Precision:
    """The precision that its weights make it; activations must be float32.

    Raises:
        CheckpointError: it is in none that edgelm knows.
    """
    kinds = {kind for kind, _ in _constants(model)}
    computed = set()
    for graph in model.subgraphs:
        for operator in graph.operators:
            if flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex) in ("FULLY_CONNECTED", "BATCH_MATMUL"):
                computed.add(flatbuffer_utils.type_to_name(graph.tensors[operator.inputs[0]].type))
    if not kinds <= {"FLOAT32", "INT8", "INT32"} or not computed <= {"FLOAT32"}:
        told = f"weights in {', '.join(sorted(kinds))}, activations in {', '.join(sorted(computed))}".lower()
        raise CheckpointError(f"{source}: expected weights in float32 or int8, activations in float32; found {told}")
    return "int8-dynamic" if "INT8" in kinds else "fp32"
