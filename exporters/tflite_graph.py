"""A smaller TFLite file with the same content: what every signature repeats is written once."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert.tools import flatbuffer_utils

from edgelm.exporters.metadata import NAME

__all__ = ["inline", "packed", "slim"]

_INLINE = 1024
"""Constants of fewer bytes stay inside the flatbuffer; larger ones follow it, 16-byte aligned for SIMD loads."""


def slim(artifact: bytes, *, metadata: str | None = None) -> tuple[bytes, int]:
    """Write a model again with quantization parameters shared among signatures, and without names inside the graph.

    A quantized weight has a scale and a 64-bit zero point for each row, and the converter repeats them for every
    signature: a tenth of a file with four. Names are kept where the engine needs them: at inputs and outputs.

    Args:
        artifact: a TFLite model.
        metadata: to be written into it.

    Returns:
        The new model, and the number of operators of its first signature.
    """
    model: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(artifact))
    shared: dict[tuple[bytes, bytes, int], _Once] = {}
    for graph in model.subgraphs:
        kept = {*graph.inputs, *graph.outputs}
        for index, tensor in enumerate(graph.tensors):
            if index not in kept:
                tensor.name = None
            found = tensor.quantization
            if found is not None and found.scale is not None:
                key = (
                    np.asarray(found.scale).tobytes(),
                    np.asarray(found.zeroPoint).tobytes(),
                    found.quantizedDimension,
                )
                tensor.quantization = shared.setdefault(key, _Once(found))
    if metadata is not None:
        _describe_(model, metadata)
    return packed(model), len(model.subgraphs[0].operators)


def _describe_(model: Any, metadata: str) -> None:
    """Add a metadata buffer."""
    buffer, entry = flatbuffer_utils.schema_fb.BufferT(), flatbuffer_utils.schema_fb.MetadataT()
    buffer.data = np.frombuffer(metadata.encode(), np.uint8)
    entry.name, entry.buffer = NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or ()), entry]


class _Once:
    """Stands for a table of the flatbuffer, and writes it where it is first needed."""

    def __init__(self, table: Any) -> None:
        self._table, self._offset = table, None

    def Pack(self, builder: Any) -> Any:
        if self._offset is None:
            self._offset = self._table.Pack(builder)
        return self._offset


def packed(model: Any) -> bytes:
    """The flatbuffer, then the large constants at the offsets that it names. The model is used up."""
    outside: dict[int, bytes] = {}
    told = {entry.buffer for entry in model.metadata or ()}  # readers of metadata look inside the flatbuffer only
    for index, buffer in enumerate(model.buffers):
        if buffer.data is not None and len(buffer.data) >= _INLINE and index not in told:
            outside[index] = np.asarray(buffer.data, np.uint8).tobytes()
            buffer.data, buffer.offset, buffer.size = None, 1, 1  # room for the numbers, which are written below
    head = flatbuffer_utils.convert_object_to_bytearray(model)
    tables = flatbuffer_utils.schema_fb.Model.GetRootAs(head)
    offset, parts = -(-len(head) // 16) * 16, [b""]
    for index, data in outside.items():
        flatbuffer_utils.update_packed_buffer(tables.Buffers(index), offset=offset, size=len(data))
        parts.append(data + bytes(-len(data) % 16))
        offset += len(parts[-1])
    return bytes(head) + bytes(-len(head) % 16) + b"".join(parts)


def inline(model: Any) -> bytes:
    """The flatbuffer with all constants inside it: older readers know no others."""
    for buffer in model.buffers:
        if buffer.data is not None:
            buffer.data = np.asarray(buffer.data, np.uint8)  # of anything else it writes one byte after the other
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
