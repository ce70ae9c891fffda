"""int8-static for LiteRT: what its linear layers read and give is known to a byte before it runs.

Ranges are taken from the float32 model as LiteRT runs it, since the converter has moved what a layer norm multiplies by
into the weights behind it. What must not be rounded is found on the quantized model itself; it is left to int8-dynamic.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray

from edgelm.errors import DataError
from edgelm.exporters import tflite_quantize
from edgelm.exporters.ranges import Range, best_range, different, sensitive, spread
from edgelm.exporters.tflite_graph import inline
from edgelm.exporters.tflite_quantize import static
from edgelm.runtimes import Ids, engine
from edgelm.text import padded

__all__ = ["calibrated"]

TOLERANCE = 0.002
"""Stricter than of ONNX: what is spared here is int8-dynamic, neither larger nor slower."""

_TEXTS, _PROBES = 128, 48
_SHAPES = ("RESHAPE", "SLICE", "SQUEEZE", "STRIDED_SLICE", "TRANSPOSE")
"""Operators that give what they read in another shape."""

_VALUES = 50_000
"""Of each tensor, kept to take a range from."""

Place = tuple[int, str, int]
"""A tensor wherever it is in a signature: position of its operator, ``inputs`` or ``outputs``, which of them."""


def calibrated(exported: bytes, rows: Sequence[Ids]) -> tuple[bytes, tuple[str, ...]]:
    """A float32 model in ``int8-static``, and what is to be said of it.

    Args:
        exported: the TFLite model, with the names that the converter gave its tensors; its signatures have the same
            operators in the same order.
        rows: token ids of real texts, without padding, int32, shape (tokens,) each; 128 of them are used.

    Raises:
        DataError: fewer than ``ranges.LEAST`` are different and not too long, or the model says the same of all.
        ExportFailed: the quantizer failed.
    """
    model: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(exported))
    lengths = _lengths(model)
    texts = spread(different([row for row in rows if len(row) <= max(lengths)]), _TEXTS)
    last = _given_out(model)  # of what is given out, the extremes are what decides: nothing is cut off
    ranges = {
        place: Range.of(low, high) if place == last else best_range(values, low, high)
        for place, (values, low, high) in _observed(exported, model, texts).items()
    }
    spans = {_name(model, index, place): span for index in range(len(lengths)) for place, span in ranges.items()}

    # trials are on one signature: the smallest that nine texts in ten fit
    enough = [i for i, tokens in enumerate(lengths) if sum(len(row) <= tokens for row in texts) >= 0.9 * len(texts)]
    index = min(enough, key=lengths.__getitem__)  # signatures stand in any order
    probes = spread([row for row in texts if len(row) <= lengths[index]], _PROBES)
    trial = _alone(model, index)
    truth = _outputs(static(trial, spans, ()), probes)  # int8-dynamic: the harm of what comes on top of it is asked for
    if not truth.var():
        raise DataError(
            "int8-static is calibrated on texts that differ: the model says the same of all that were given"
        )

    def error(parts: Sequence[str]) -> float:
        found = _outputs(static(trial, spans, parts), probes)
        return float(np.square(found - truth).mean() / truth.var())

    operators = sorted({place[0] for place in ranges})
    parts = {_name(model, index, (operator, "outputs", 0)): operator for operator in operators}
    spared, found, of_all = sensitive(list(parts), error, TOLERANCE)
    kept = [operator for name, operator in parts.items() if name not in spared]
    every = [_name(model, one, (operator, "outputs", 0)) for one in range(len(lengths)) for operator in kept]
    notes: tuple[str, ...] = ()
    if spared:
        notes = (
            f"left to int8-dynamic, since rounding what they read and give does most harm: "
            f"{', '.join(map(_short, spared))} (error {found:.2g} of the outputs' variance, {of_all:.2g} without)",
        )
    return static(exported, spans, every), notes


def _lengths(model: Any) -> list[int]:
    """Tokens of each signature, in the order of the subgraphs."""
    return [int(graph.tensors[graph.inputs[0]].shape[1]) for graph in model.subgraphs]


def _name(model: Any, index: int, place: Place) -> str:
    graph, (operator, side, which) = model.subgraphs[index], place
    name: str = graph.tensors[getattr(graph.operators[operator], side)[which]].name.decode()
    return name


def _short(name: str) -> str:
    """The part of a module's path that tells it: ``Layer_0/_Ffn_ffn/Linear_up``."""
    steps = [step.rpartition(".")[2] for step in name.split(";;")[-1].partition(";")[0].split("/")]
    return "/".join(steps[2:]) or name


def _observed(
    exported: bytes, model: Any, rows: Sequence[Ids]
) -> dict[Place, tuple[NDArray[np.float32], float, float]]:
    """Of what each operator reads and gives, without padding: a sample, the least and the greatest value."""
    interpreter = Interpreter(
        model_content=exported,
        experimental_preserve_all_tensors=True,
        # XNNPACK shows nobody what it computes on the way
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    lengths = _lengths(model)
    runners = {
        one.subgraphIndex: interpreter.get_signature_runner(one.signatureKey.decode()) for one in model.signatureDefs
    }
    kept = defaultdict[Place, list[NDArray[np.float32]]](list)
    ends = defaultdict[Place, list[tuple[float, float]]](list)
    for row in rows:
        index = min((i for i, tokens in enumerate(lengths) if tokens >= len(row)), key=lengths.__getitem__)
        ids, mask = padded([row], 0, lengths[index])
        runners[index](input_ids=ids, attention_mask=mask)
        for place, tensor in _activations(model, index):
            values = interpreter.get_tensor(tensor, index)
            rows_of_it = values.reshape(-1, values.shape[-1])
            rows_of_it = rows_of_it[: len(row)] if len(rows_of_it) == lengths[index] else rows_of_it
            ends[place].append((float(rows_of_it.min()), float(rows_of_it.max())))
            kept[place].append(rows_of_it.ravel()[:: -(-rows_of_it.size * len(rows) // _VALUES)].copy())
    return {
        place: (np.concatenate(kept[place]), min(low for low, _ in found), max(high for _, high in found))
        for place, found in ends.items()
    }


def _given_out(model: Any) -> Place | None:
    """What an operator of ``STATIC`` gives, if that is the model's output as it is."""
    graph, kinds = model.subgraphs[0], {kind.name for kind in tflite_quantize.STATIC}
    tensor = int(graph.outputs[0])
    for position, operator in reversed(list(enumerate(graph.operators))):
        if tensor in operator.outputs:
            name = flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex)
            if name in kinds:
                return position, "outputs", 0
            if name not in _SHAPES:
                return None
            tensor = int(operator.inputs[0])
    return None


def _activations(model: Any, index: int) -> Iterator[tuple[Place, int]]:
    """Every float tensor that an operator of ``STATIC`` reads or gives, but for constants."""
    graph, kinds = model.subgraphs[index], {kind.name for kind in tflite_quantize.STATIC}
    for position, operator in enumerate(graph.operators):
        if flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex) in kinds:
            for side in ("inputs", "outputs"):
                for which, tensor in enumerate(getattr(operator, side)):
                    if tensor >= 0 and model.buffers[graph.tensors[tensor].buffer].data is None:
                        yield (position, side, which), int(tensor)


def _alone(model: Any, index: int) -> bytes:
    """The model with one signature."""
    alone = copy.copy(model)
    alone.subgraphs = [model.subgraphs[index]]
    signature = copy.copy(next(one for one in model.signatureDefs if one.subgraphIndex == index))
    signature.subgraphIndex = 0
    alone.signatureDefs = [signature]
    return inline(alone)


def _outputs(artifact: bytes, rows: Sequence[Ids]) -> NDArray[np.float32]:
    """The engine's outputs of all rows, one after the other, flat."""
    session = engine("litert").load(artifact, threads=1)
    try:
        return np.concatenate([session.run(row[None], np.ones_like(row)[None]).ravel() for row in rows])
    finally:
        session.close()
