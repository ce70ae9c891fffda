"""A TFLite graph cut into pieces that are models of their own.

A piece reads what the pieces before it gave, so that together they compute what the model does. A cut is made where a
layer ends, and where a layer goes from products of weights to those of activations or back: the products of a piece are
of one kind. The tables are those of
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgelm.errors import DataError
from edgelm.profile.layers import layer_names
from edgelm.runtimes.litert import SIGNATURE

__all__ = ["Cut", "Piece", "cut"]

_LINEAR, _BATCHED = "FULLY_CONNECTED", "BATCH_MATMUL"
_LOOKUPS = ("EMBEDDING_LOOKUP", "GATHER")
_NORM, _NORM_END = "RSQRT", "ADD"  # a LayerNorm is written out: its last step is the first sum after the root
_BITS = {"FLOAT32": 32, "INT32": 32, "FLOAT16": 16, "INT8": 8, "UINT8": 8, "INT4": 4, "INT64": 64, "BOOL": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some operators that follow each other.

    Attributes:
        layer: of the model that they belong to.
        name: which operators, for people.
        kind: of its products; empty if it has none.
        artifact: a TFLite model of them alone, whose tensors have the numbers that they have in the whole model.
        inputs: tensors that it reads.
        outputs: tensors that it gives.
        macs: multiply-adds.
        bytes: what comes in and goes out, and its constants; of a table the rows that are looked up.
        int8: whether its products are of 8-bit integers.
    """

    layer: str
    name: str
    kind: str
    artifact: bytes
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    macs: int
    bytes: int
    int8: bool


@dataclass(frozen=True, slots=True)
class Cut:
    """A signature, cut.

    Attributes:
        tokens: that it takes.
        input_ids: the tensor of its input of that name.
        attention_mask: the same.
        pieces: in the order in which they run.
    """

    tokens: int
    input_ids: int
    attention_mask: int
    pieces: tuple[Piece, ...]


def cut(artifact: bytes, tokens: int, layers: int) -> Cut:
    """Cut the signature that takes so many tokens.

    Args:
        artifact: a TFLite model with signatures such as ``tokens_32``.
        tokens: of a request.
        layers: of the model.

    Raises:
        DataError: no signature takes so many, or there are not as many LayerNorms as the model has sublayers.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(artifact))
    length, signature = _signature(model, tokens)
    graph = _Graph(model, int(signature.subgraphIndex))
    inputs = {one.name.decode(): int(one.tensorIndex) for one in signature.inputs}
    pieces = tuple(graph.piece(layer, positions) for layer, positions in graph.parts(layers))
    return Cut(length, inputs["input_ids"], inputs["attention_mask"], pieces)


def _signature(model: Any, tokens: int) -> tuple[int, Any]:
    """The smallest signature that takes so many tokens, and how many it takes."""
    known = {
        int(found[1]): one
        for one in model.signatureDefs or ()
        if (found := SIGNATURE.fullmatch(one.signatureKey.decode()))
    }
    fit = [length for length in known if length >= tokens]
    if not fit:
        raise DataError(f"per-layer: expected a signature of {tokens} tokens or more, found {sorted(known) or 'none'}")
    return min(fit), known[min(fit)]


class _Graph:
    """A subgraph of a TFLite model."""

    def __init__(self, model: Any, index: int) -> None:
        from ai_edge_litert.tools import flatbuffer_utils

        self._model, self._graph, self._tools = model, model.subgraphs[index], flatbuffer_utils
        self._kinds = [flatbuffer_utils.opcode_to_name(model, one.opcodeIndex) for one in self._graph.operators]
        types = vars(flatbuffer_utils.schema_fb.TensorType)
        self._bits = {types[name]: bits for name, bits in _BITS.items()}
        self._constant = {i for i, one in enumerate(self._graph.tensors) if model.buffers[one.buffer].data is not None}
        self._prepared = dict[int, int]()  # tensors that constants alone decide, such as unpacked weights: by operator
        for position, one in enumerate(self._graph.operators):
            if all(tensor in self._constant or tensor in self._prepared for tensor in _named(one.inputs)):
                self._prepared |= dict.fromkeys(_named(one.outputs), position)

    def parts(self, layers: int) -> Iterator[tuple[str, list[int]]]:
        """The operators of each piece, with the layer it belongs to."""
        norms = self._kinds.count(_NORM)
        if norms not in (1 + 2 * layers, 2 + 2 * layers):  # the head of a masked language model has one too
            raise DataError(
                f"per-layer: expected {1 + 2 * layers} LayerNorms of {layers} layers in the graph, found {norms}: "
                "its operators cannot be told apart"
            )
        names = layer_names(layers)
        name, seen, part = next(names), "", list[int]()
        ending = False
        prepared = {*self._prepared.values()}
        for position, kind in enumerate(self._kinds):
            if position in prepared:
                continue
            product = self._product(position)
            if product and seen and product != seen:
                end = len(part)
                if product.startswith(_BATCHED):  # what prepares its factors goes with it
                    end = 1 + max(i for i, one in enumerate(part) if self._product(one))
                yield name, part[:end]
                part = part[end:]
            part.append(position)
            seen, ending = product or seen, ending or kind == _NORM
            if ending and kind == _NORM_END and name != "head":
                yield name, part
                name, seen, part, ending = next(names), "", [], False
        if part:
            yield name, part

    def piece(self, layer: str, positions: Sequence[int]) -> Piece:
        """Some operators as a model of their own."""
        operators = [self._graph.operators[position] for position in positions]
        needed = {tensor for one in operators for tensor in _named(one.inputs)}
        before = sorted({self._prepared[tensor] for tensor in needed if tensor in self._prepared})
        made = {tensor for one in operators for tensor in _named(one.outputs)}
        inputs = tuple(sorted(needed - made - self._constant - self._prepared.keys()))
        later = [self._graph.operators[at] for at in range(len(self._kinds)) if at not in positions]
        asked = {tensor for one in later for tensor in _named(one.inputs)} | {*_named(self._graph.outputs)}
        outputs = tuple(sorted(made & asked))
        whole = [self._graph.operators[position] for position in before] + operators
        kinds = Counter(self._kinds[position] for position in positions)
        products = [position for position in positions if self._product(position)]
        return Piece(
            layer=layer,
            name=", ".join(f"{n} {kind}" if n > 1 else kind for kind, n in kinds.items()),
            kind=self._kinds[products[0]] if products else "",
            artifact=self._written(whole, inputs, outputs),
            inputs=inputs,
            outputs=outputs,
            macs=sum(map(self._macs, products)),
            bytes=self._moved(positions, inputs, outputs),
            int8=bool(products) and self._product(products[0]).endswith("int8"),
        )

    def _product(self, position: int) -> str:
        """What kind of product an operator is: of weights or activations, of integers or not; empty if of none."""
        kind = self._kinds[position]
        if kind not in (_LINEAR, _BATCHED):
            return ""
        right = self._graph.tensors[self._graph.operators[position].inputs[1]]
        return f"{kind} int8" if self._bits[right.type] <= 8 else kind

    def _macs(self, position: int) -> int:
        one = self._graph.operators[position]
        left, out = (self._graph.tensors[tensor].shape for tensor in (one.inputs[0], one.outputs[0]))
        return math.prod(map(int, out)) * int(left[-1])

    def _moved(self, positions: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> int:
        total = sum(map(self._size, (*inputs, *outputs)))
        for position in positions:
            one = self._graph.operators[position]
            if self._kinds[position] in _LOOKUPS:
                total += self._size(one.outputs[0])
            else:
                total += sum(self._size(tensor) for tensor in {*_named(one.inputs)} & self._constant)
        return total

    def _size(self, tensor: int) -> int:
        found = self._graph.tensors[tensor]
        return math.prod(map(int, found.shape)) * self._bits[found.type] // 8

    def _written(self, operators: Sequence[Any], inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """A model of all tensors, so that they keep their numbers, but of the constants of these operators alone."""
        schema, graph, alone = self._tools.schema_fb, copy.copy(self._graph), copy.copy(self._model)
        graph.inputs, graph.outputs, graph.operators = inputs, outputs, operators
        used = {tensor for one in operators for tensor in _named(one.inputs)}
        used |= {scales for tensor in used if (scales := _scales(self._graph.tensors[tensor])) is not None}
        kept = {self._graph.tensors[tensor].buffer for tensor in used}
        alone.buffers = [one if at in kept else schema.BufferT() for at, one in enumerate(self._model.buffers)]
        for one in alone.buffers:
            if one.data is not None:
                one.data = np.asarray(one.data, np.uint8)  # of anything else it writes one byte after the other
        alone.subgraphs, alone.signatureDefs, alone.metadata = [graph], None, None
        return bytes(self._tools.convert_object_to_bytearray(alone))


def _named(tensors: Sequence[int]) -> Iterator[int]:
    """Without those that are left out, which are -1."""
    return (int(tensor) for tensor in tensors if tensor >= 0)


def _scales(tensor: Any) -> int | None:
    """The tensor with the scales of one that is quantized in blocks."""
    details = tensor.quantization.details if tensor.quantization else None
    return None if details is None or not hasattr(details, "scales") else int(details.scales)
