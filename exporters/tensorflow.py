"""Keras models and SavedModels: to TFLite by TensorFlow's own converter, to ONNX by tf2onnx.

TFLite has a signature ``tokens_N`` for each length, as the exporter of our own encoders writes them: with every shape
known, XNNPACK runs the graph, but for what the log of an export lists. TensorFlow is imported here and in ``tf_onnx``,
and nowhere else.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgelm.errors import CheckpointError, ExportFailed
from edgelm.exporters import Tell, check_request, check_size, log
from edgelm.exporters.foreign import PRECISIONS, Foreign, Imported, Output, onnx, tf_onnx, tflite
from edgelm.exporters.foreign.companions import Companions
from edgelm.exporters.foreign.fit import meanings, output, output_name, tried
from edgelm.exporters.quiet import mute, quiet
from edgelm.manifest import Format, Int8, Precision
from edgelm.model import EncoderConfig
from edgelm.runtimes import Ids, Logits

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
with mute(), quiet():
    import keras
    import tensorflow as tf

__all__ = ["read"]

_NAMES = ("input_ids", "attention_mask")


class _Function(Foreign):
    """A model that TensorFlow runs: a ``tf.function`` of ids and mask, and what owns the weights that it reads."""

    def __init__(self, config: EncoderConfig, output: Output, call: Any, owner: Any) -> None:
        self.call, self.owner = call, owner
        weights = sum(math.prod(one.shape) for one in _variables(call))
        super().__init__(config, output, weights, PRECISIONS)

    def answer(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        """See ``Foreign``."""
        return _answer(self.call, input_ids, attention_mask)

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
        """See ``Foreign``."""
        check_request(form, self.can[form], self, precisions, lengths, calibration)
        check_size(form, self, "export the checkpoint that it was made of")
        if form == "onnx":
            made = tf_onnx.from_function(self.call)
            return onnx.written(
                made, precisions, self, max(lengths), rows=False, calibration=calibration, int8=int8, tell=tell
            )
        with tempfile.TemporaryDirectory(prefix="edgelm-tensorflow-") as folder:
            exported = _tflite(folder, _save(self.call, folder, sorted(set(lengths))))
        return tflite.written(exported, precisions, self.head, lengths, calibration=calibration, tell=tell)


@dataclass(frozen=True)
class _Found:
    """What a Keras model and a SavedModel have in common."""

    run: Callable[[dict[str, Any]], Any]
    inputs: Mapping[str, Any]
    owner: Any


def read(model: Path | Any, beside: Companions, lengths: Sequence[int]) -> Imported:
    """Read a ``.keras`` file or a SavedModel folder, or take a ``keras.Model`` that is in memory.

    Args:
        model: takes token ids and mask, under any of the names that are known, in any integer type.
        beside: its tokenizer, task and labels.
        lengths: token lengths that are wanted; what the model cannot take of them is left out.

    Raises:
        CheckpointError: it cannot be read, or has other inputs or another output than its task.
        DataError: labels or tokenizer are not the model's.
    """
    source = str(model) if isinstance(model, Path) else f"the Keras model '{model.name}'"
    with mute(), quiet("absl", "tensorflow"):
        if isinstance(model, Path) and model.is_dir():
            found = _saved_model(model)
        else:
            found = _keras(_load(model) if isinstance(model, Path) else model, source)
        call, fixed = _function(found, output_name(beside), source)
        # muted too: TensorFlow logs every length that the model does not take
        config, given, taken = tried(lambda *ids: _answer(call, *ids), beside, (fixed,) if fixed else lengths, source)
    function = _Function(config, given, call, found.owner)
    size = _size(model) if isinstance(model, Path) else 4 * function.weights.numel()
    return Imported(function, beside.tokenizer, source, size, taken, "tensorflow")


def _load(path: Path) -> Any:
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as exc:  # of many types, for a file that is no ZIP, a class that is not known, a lambda …
        reason = " ".join(str(exc).split())[:200]
        raise CheckpointError(f"{path}: expected a Keras model as model.save() writes it: {reason}") from exc


def _keras(model: Any, source: str) -> _Found:
    if keras.backend.backend() != "tensorflow":
        raise CheckpointError(f"{source}: Keras runs on {keras.backend.backend()}: set KERAS_BACKEND=tensorflow first")
    inputs = {str(one.name): one for one in getattr(model, "inputs", None) or ()}
    return _Found(lambda given: model(given, training=False), inputs, model)


def _saved_model(path: Path) -> _Found:
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as exc:  # of many types, as above
        reason = " ".join(str(exc).split())[:200]
        raise CheckpointError(f"{path}: expected a SavedModel as TensorFlow writes it: {reason}") from exc
    names = sorted(loaded.signatures)
    name = names[0] if len(names) == 1 else "serving_default"
    if name not in names:
        raise CheckpointError(f"{path}: expected one signature, or serving_default; found {', '.join(names) or 'none'}")
    signature = loaded.signatures[name]
    return _Found(lambda given: signature(**given), signature.structured_input_signature[1], loaded)


def _function(found: _Found, name: str, source: str) -> tuple[Any, int]:
    """Our inputs to an output of this name, and the one length that the model takes, or 0."""
    meaning = meanings(found.inputs, source)
    shapes = {theirs: tuple(one.shape) for theirs, one in found.inputs.items()}
    lengths = {shape[-1] for shape in shapes.values()}
    if any(len(shape) != 2 or shape[0] is not None for shape in shapes.values()) or len(lengths) > 1:
        told = ", ".join(f"{theirs} {shape}" for theirs, shape in shapes.items())
        raise CheckpointError(f"{source}: expected inputs of shape (None, tokens), any batch; found {told}")
    fixed = int(lengths.pop() or 0)

    @tf.function(input_signature=[tf.TensorSpec((None, None), tf.int32, name=one) for one in _NAMES])  # type: ignore[untyped-decorator]
    def call(input_ids: Any, attention_mask: Any) -> dict[str, Any]:
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": tf.zeros_like(input_ids)}
        feed = {}
        for theirs, ours in meaning.items():
            value = tf.cast(given[ours], found.inputs[theirs].dtype)
            if fixed:
                value = tf.pad(value, [[0, 0], [0, fixed - tf.shape(value)[1]]])
                value = tf.ensure_shape(value, (None, fixed))
            feed[theirs] = value
        out = found.run(feed)
        several = out if isinstance(out, Mapping) else {str(i): one for i, one in enumerate(tf.nest.flatten(out))}
        one = several[output(list(several), name, source)]
        return {name: one[:, : tf.shape(input_ids)[1]] if fixed and one.shape.rank == 3 else one}

    return call, fixed


def _answer(call: Any, input_ids: Ids, attention_mask: Ids) -> Logits:
    (found,) = call(tf.constant(input_ids), tf.constant(attention_mask)).values()
    answer: Logits = found.numpy()
    return answer


def _variables(call: Any) -> list[Any]:
    return list(call.get_concrete_function().variables)


def _size(path: Path) -> int:
    return sum(one.stat().st_size for one in ([path] if path.is_file() else path.rglob("*")) if one.is_file())


def _save(call: Any, folder: str, lengths: Sequence[int]) -> list[str]:
    """A SavedModel with a signature for each length; their names."""
    module = tf.Module()
    module.weights = _variables(call)  # those that nobody tracks are left unfrozen, and the artifact computes NaN
    signatures = {}
    for length in lengths:
        specs = [tf.TensorSpec((1, length), tf.int32, name=name) for name in _NAMES]
        signatures[f"tokens_{length}"] = tf.function(call.python_function).get_concrete_function(*specs)
    with mute(), quiet("absl", "tensorflow"):
        tf.saved_model.save(module, folder, signatures=signatures)
    return list(signatures)


def _tflite(folder: str, signatures: Sequence[str]) -> bytes:
    try:
        with mute(), quiet("absl", "tensorflow"):
            converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(signatures))
            return bytes(converter.convert())
    except Exception as exc:  # it passes on whatever its C++ parts raise
        reason = " ".join(str(exc).split())[:300]
        raise ExportFailed(f"tflite fp32: TensorFlow does not convert the model: {reason}") from exc
