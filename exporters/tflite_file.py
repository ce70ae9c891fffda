"""A bare TFLite model: into a bundle as it is, or with the signatures that edgelm's runtime asks for.

The weights and operators stay what they are. A file whose signatures are named ``tokens_N`` and whose inputs and output
have our names and types is not changed at all. Otherwise: a signature of one length is named after it, one of any
length is written once for each length (on the same weights), 64-bit inputs are cast from ours, and token types, which
are all 0, become a constant.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from edgelm.errors import CheckpointError, MissingExtra
from edgelm.exporters import Report, Tell, check_request, log
from edgelm.exporters.companions import Companions
from edgelm.exporters.foreign import narrowed, shape
from edgelm.exporters.tflite_edits import adapted, extracted
from edgelm.exporters.tflite_signatures import Signature, parsed, runnable, signatures, table, weights
from edgelm.exporters.trial import try_out
from edgelm.manifest import Device, Format, Precision
from edgelm.model import EncoderConfig
from edgelm.recipe import Export
from edgelm.runtimes import Ids, Logits

__all__ = ["TfliteFile", "read"]


@dataclass(frozen=True)
class TfliteFile:
    """A TFLite model that LiteRT runs; see ``edgelm.exporters.foreign.Foreign``.

    Attributes:
        content: the file's.
        original: runs it under the names that it has itself.
        precision: that it is in.
    """

    content: bytes
    original: _Original
    precision: Precision
    config: EncoderConfig
    source: str
    size: int
    parameters: int
    tokenizer: bytes
    lengths: tuple[int, ...]

    def logits(self, input_ids: Ids) -> Logits:
        """What LiteRT answers under the model's own signatures."""
        return np.concatenate([self.original.row(ids) for ids in input_ids])

    def plan(self, wanted: Export, device: Device) -> dict[Format, tuple[Precision, ...]]:
        """TFLite in the precision that it has, and ONNX if that is asked for."""
        onnx: tuple[Precision, ...] = ("fp32", "int8-dynamic") if self.precision == "fp32" else ("int8-dynamic",)
        return narrowed({"onnx": onnx, "tflite": (self.precision,)}, ("tflite",), wanted, device, self.source)

    def export(
        self, form: Format, precisions: Sequence[Precision], lengths: Sequence[int], *, tell: Tell = log
    ) -> dict[Precision, bytes]:
        """The file with our signatures, or what tf2onnx makes of its longest one.

        Raises:
            RecipeError: a precision or length that cannot be written.
            MissingExtra: TensorFlow, which tf2onnx needs, is not installed.
            ExportFailed: a converter failed, or an artifact does not load and run.
        """
        check_request(form, ("fp32", "int8-dynamic"), self, precisions, lengths)
        if form == "onnx":
            return self._onnx(precisions, lengths, tell)
        started = time.perf_counter()
        artifact = adapted(self.content, self.source, lengths)
        try_out(artifact, f"tflite {self.precision}", [(1, n) for n in lengths], self.config, by="litert")
        nodes = len(parsed(artifact, self.source).subgraphs[0].operators)
        tell(Report("tflite", self.precision, len(artifact), nodes, time.perf_counter() - started))
        return {self.precision: artifact}

    def _onnx(self, precisions: Sequence[Precision], lengths: Sequence[int], tell: Tell) -> dict[Precision, bytes]:
        try:
            from edgelm.exporters import tf_onnx
        except ModuleNotFoundError as exc:
            raise MissingExtra(f"{self.source}: converting it to ONNX", "tensorflow") from exc
        made = tf_onnx.from_tflite(extracted(self.content, self.source, max(lengths)))
        return tf_onnx.written(made, precisions, self.config, max(lengths), tell, rowwise=True)


def read(path: Path, beside: Companions, lengths: Sequence[int]) -> TfliteFile:
    """Read a ``.tflite`` file.

    Args:
        path: the file.
        beside: its tokenizer and labels.
        lengths: token lengths that are wanted, of a model that takes any.

    Raises:
        CheckpointError: it is no TFLite model, has other inputs, or gives no logits.
        DataError: labels or tokenizer are not the model's.
    """
    content, source = path.read_bytes(), str(path)
    model = parsed(content, source)
    found = signatures(model, source)
    fixed = tuple(sorted(one.length for one in found if one.length))
    original = _Original(runnable(content, model, found), found)
    longest = max(fixed) if fixed else original.longest(lengths, source)
    ids = np.random.default_rng(0).integers(0, 2, (4, min(8, longest)), np.int32)
    answers = np.concatenate([original.row(row) for row in ids])
    parameters, precision = weights(model, found[0], source)
    return TfliteFile(
        content=content,
        original=original,
        precision=precision,
        config=shape(source, beside, answers, table(model, found[0]), longest),
        source=source,
        size=len(content),
        parameters=parameters,
        tokenizer=beside.tokenizer,
        lengths=fixed,
    )


class _Original:
    """The model under its own signatures, in LiteRT."""

    def __init__(self, content: bytes, found: Sequence[Signature]) -> None:
        self._interpreter = Interpreter(model_content=content, num_threads=1)
        self._signatures = sorted(found, key=lambda one: one.length)
        self._runners: dict[str, Any] = {}

    def row(self, ids: Ids) -> Logits:
        """Logits of one row, padded to the next length only where the model takes no other."""
        used = next(one for one in self._signatures if not one.length or len(ids) <= one.length)
        length = used.length or len(ids)
        given = {name: np.zeros((1, length), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
        given["input_ids"][0, : len(ids)], given["attention_mask"][0, : len(ids)] = ids, 1
        feed = {one.theirs: given[one.ours].astype(one.dtype) for one in used.inputs}
        if used.key not in self._runners:
            self._runners[used.key] = self._interpreter.get_signature_runner(used.key)
        found: Logits = self._runners[used.key](**feed)[used.output]
        return found

    def longest(self, lengths: Sequence[int], source: str) -> int:
        """The longest of the lengths that it runs with: one that is too long ends in an error of the engine."""
        reason = ""
        for length in sorted(lengths, reverse=True):
            try:
                self.row(np.zeros(length, np.int32))
            except (ValueError, RuntimeError) as exc:
                reason = " ".join(str(exc).split())[:200]
            else:
                return length
        raise CheckpointError(f"{source}: does not run with {min(lengths)} tokens: {reason}")
