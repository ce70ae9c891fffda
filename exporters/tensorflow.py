"""Keras models and SavedModels: to TFLite by TensorFlow's own converter, to ONNX by tf2onnx.

TFLite has a signature ``tokens_N`` for each length, as the exporter of our own encoders writes them: with every shape
known, XNNPACK runs the whole graph. TensorFlow is imported here and in ``tf_onnx``, and nowhere else.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.errors import CheckpointError, ExportFailed
from edgelm.exporters import Report, Tell, check_request, log, tf_onnx
from edgelm.exporters.companions import Companions
from edgelm.exporters.foreign import meanings, narrowed, shape, words
from edgelm.exporters.quiet import mute, quiet
from edgelm.exporters.tflite_graph import slim
from edgelm.exporters.trial import try_out
from edgelm.manifest import Device, Format, Precision
from edgelm.model import EncoderConfig
from edgelm.recipe import Export
from edgelm.runtimes import Ids, Logits

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
with mute(), quiet():
    import keras
    import tensorflow as tf

__all__ = ["PRECISIONS", "Imported", "read"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "int8-dynamic")
_TRIED = 8
"""Tokens of the rows that a model is tried out with."""

Tensors = Mapping[str, Any]


@dataclass(frozen=True)
class Imported:
    """A model that TensorFlow runs; see ``edgelm.exporters.foreign.Foreign``.

    Attributes:
        call: a ``tf.function`` of (input_ids, attention_mask), int32, shape (batch, tokens), to {"logits"}.
        holder: what owns the weights that ``call`` reads.
    """

    call: Any
    holder: Any
    config: EncoderConfig
    source: str
    size: int
    parameters: int
    tokenizer: bytes
    lengths: tuple[int, ...]

    def logits(self, input_ids: Ids) -> Logits:
        """What TensorFlow answers."""
        return _answers(self.call, input_ids)

    def plan(self, wanted: Export, device: Device) -> dict[Format, tuple[Precision, ...]]:
        """Both formats in both precisions."""
        return narrowed({"onnx": PRECISIONS, "tflite": PRECISIONS}, ("onnx", "tflite"), wanted, device, self.source)

    def export(
        self, form: Format, precisions: Sequence[Precision], lengths: Sequence[int], *, tell: Tell = log
    ) -> dict[Precision, bytes]:
        """Convert, load every artifact in its engine and run it.

        Raises:
            RecipeError: a precision or length that cannot be written.
            ExportFailed: a converter failed, or an artifact does not load and run.
        """
        check_request(form, PRECISIONS, self, precisions, lengths)
        if form == "onnx":
            return tf_onnx.written(tf_onnx.from_function(self.call), precisions, self.config, max(lengths), tell)
        started, found = time.perf_counter(), dict[Precision, bytes]()
        with tempfile.TemporaryDirectory(prefix="edgelm-tensorflow-") as folder:
            names = self._save(folder, lengths)
            for precision in precisions:
                artifact, nodes = slim(_tflite(folder, names, precision))
                try_out(artifact, f"tflite {precision}", [(1, n) for n in sorted(lengths)], self.config, by="litert")
                found[precision] = artifact
                tell(Report("tflite", precision, len(artifact), nodes, time.perf_counter() - started))
                started = time.perf_counter()
        return found

    def _save(self, folder: str, lengths: Sequence[int]) -> list[str]:
        """A SavedModel with a signature for each length; their names."""
        module = tf.Module()
        module.weights = list(self.call.get_concrete_function().variables)  # in a Keras model they stay variables
        signatures = {}
        for length in sorted(set(lengths)):
            specs = [tf.TensorSpec((1, length), tf.int32, name=name) for name in ("input_ids", "attention_mask")]
            signatures[f"tokens_{length}"] = tf.function(self.call.python_function).get_concrete_function(*specs)
        with mute(), quiet("absl", "tensorflow"):
            tf.saved_model.save(module, folder, signatures=signatures)
        return list(signatures)


def read(model: Path | Any, beside: Companions, lengths: Sequence[int]) -> Imported:
    """Read a ``.keras`` file or a SavedModel folder, or take a ``keras.Model`` that is in memory.

    Args:
        model: token ids and mask in, logits out; under any of the names of ``foreign.INPUTS``, in any integer type.
        beside: its tokenizer and labels.
        lengths: token lengths that are wanted; what the model cannot take of them is left out.

    Raises:
        CheckpointError: it cannot be read, takes other inputs or gives no logits.
        DataError: labels or tokenizer are not the model's.
    """
    source = str(model) if isinstance(model, Path) else f"the Keras model '{model.name}'"
    if not isinstance(model, Path):
        network = _keras(model, source)
    else:
        with mute(), quiet("absl", "tensorflow"):
            network = _saved_model(model) if model.is_dir() else _keras(_load(model), source)
    call, fixed = _function(network, source)
    longest = fixed or _longest(call, lengths, source)
    ids = np.random.default_rng(0).integers(0, 2, (4, min(_TRIED, longest)), np.int32)
    rows, parameters = _weights(call)
    return Imported(
        call=call,
        holder=network.holder,
        config=shape(source, beside, _answers(call, ids), rows, longest),
        source=source,
        size=_size(model) if isinstance(model, Path) else 4 * parameters,
        parameters=parameters,
        tokenizer=beside.tokenizer,
        lengths=(fixed,) if fixed else (),
    )


@dataclass(frozen=True)
class _Network:
    """What a Keras model and a SavedModel have in common."""

    run: Callable[[dict[str, Any]], Any]
    inputs: Tensors
    holder: Any


def _load(path: Path) -> Any:
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as exc:  # of many types, for a file that is no ZIP, a class that is not known, a lambda …
        reason = " ".join(str(exc).split())[:200]
        raise CheckpointError(f"{path}: expected a Keras model as model.save() writes it: {reason}") from exc


def _keras(model: Any, source: str) -> _Network:
    if keras.backend.backend() != "tensorflow":
        raise CheckpointError(f"{source}: Keras runs on {keras.backend.backend()}: set KERAS_BACKEND=tensorflow first")
    inputs = {str(one.name): one for one in getattr(model, "inputs", None) or ()}
    return _Network(lambda given: model(given, training=False), inputs, model)


def _saved_model(path: Path) -> _Network:
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
    return _Network(lambda given: signature(**given), signature.structured_input_signature[1], loaded)


def _function(network: _Network, source: str) -> tuple[Any, int]:
    """Our inputs to {"logits"}, and the one length that the model takes, or 0."""
    meaning = meanings(network.inputs, source)
    shapes = {name: tuple(one.shape) for name, one in network.inputs.items()}
    lengths = {shape[-1] for shape in shapes.values()}
    if any(len(shape) != 2 or shape[0] is not None for shape in shapes.values()) or len(lengths) > 1:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise CheckpointError(f"{source}: expected inputs of shape (None, tokens), any batch; found {found}")
    fixed = int(lengths.pop() or 0)

    @tf.function(
        input_signature=[tf.TensorSpec((None, None), tf.int32, name=n) for n in ("input_ids", "attention_mask")]
    )  # type: ignore[untyped-decorator]
    def call(input_ids: Any, attention_mask: Any) -> dict[str, Any]:
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": tf.zeros_like(input_ids)}
        feed = {}
        for theirs, ours in meaning.items():
            value = tf.cast(given[ours], network.inputs[theirs].dtype)
            if fixed:
                value = tf.pad(value, [[0, 0], [0, fixed - tf.shape(value)[1]]])
                value = tf.ensure_shape(value, (None, fixed))
            feed[theirs] = value
        return {"logits": _output(network.run(feed), source)}

    return call, fixed


def _output(found: Any, source: str) -> Any:
    """The one output, or the one that is named logits."""
    named = found if isinstance(found, Mapping) else dict(enumerate(found)) if isinstance(found, list | tuple) else {}
    if "logits" in named:
        return named["logits"]
    if len(named) > 1 or (not named and not tf.is_tensor(found)):
        names = ", ".join(map(str, named)) or type(found).__name__
        raise CheckpointError(f"{source}: expected one output, or one named logits; found {names}")
    return next(iter(named.values())) if named else found


def _answers(call: Any, input_ids: Ids) -> Logits:
    found: Logits = call(tf.constant(input_ids), tf.ones_like(input_ids))["logits"].numpy()
    return found


def _longest(call: Any, lengths: Iterable[int], source: str) -> int:
    """The longest of the lengths that the model takes: one that is too long ends in an error of some kind."""
    reason = ""
    for length in sorted(lengths, reverse=True):
        try:
            _answers(call, np.zeros((1, length), np.int32))
        except (ValueError, TypeError, tf.errors.OpError) as exc:
            reason = " ".join(str(exc).split())[:200]
        else:
            return length
    raise CheckpointError(f"{source}: does not run with {min(lengths)} tokens: {reason}")


def _weights(call: Any) -> tuple[tuple[int, int] | None, int]:
    """Rows and width of the table that the token ids are looked up in, if it is found, and the number of weights."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    graph = convert_variables_to_constants_v2(call.get_concrete_function()).graph.as_graph_def()
    producers = {node.name: [name.strip("^").split(":")[0] for name in node.input] for node in graph.node}
    ops = {node.name: node.op for node in graph.node}
    floats = {node.name: node.attr["value"].tensor for node in graph.node if node.op == "Const"}
    dims = {name: [dim.size for dim in one.tensor_shape.dim] for name, one in floats.items() if one.dtype == tf.float32}

    def constant(name: str) -> str:  # a variable that has become one is read through identities
        return constant(producers[name][0]) if ops[name] == "Identity" else name

    lookups = [
        (constant(matrix), by, dims.get(constant(matrix), []))
        for matrix, by in (producers[node.name][:2] for node in graph.node if node.op in ("Gather", "GatherV2"))
    ]
    found = words(lookups, producers)
    return found and found[1], sum(math.prod(shape) for shape in dims.values())


def _size(path: Path) -> int:
    return sum(one.stat().st_size for one in ([path] if path.is_file() else path.rglob("*")) if one.is_file())


def _tflite(folder: str, signatures: Sequence[str], precision: Precision) -> bytes:
    try:
        with mute(), quiet("absl", "tensorflow"):
            converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(signatures))
            if precision == "int8-dynamic":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]  # without calibration data: dynamic ranges
            return bytes(converter.convert())
    except Exception as exc:  # it passes on whatever its C++ parts raise
        reason = " ".join(str(exc).split())[:300]
        raise ExportFailed(f"tflite {precision}: TensorFlow does not convert the model: {reason}") from exc
