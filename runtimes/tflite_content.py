"""A TFLite model with several signatures, shown to LiteRT with one of them at a time.

LiteRT's interpreter packs the weights for XNNPACK when it starts, once for every signature, whether it will be run or
not: a DistilBERT in int8 with six of them takes 260 MB for that. One interpreter for each signature that is used, on
the same bytes, packs them as often as there are lengths in the requests.

A model is a FlatBuffer (https://flatbuffers.dev/internals), and its tables are those of
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from contextlib import suppress

__all__ = ["Content"]

_SUBGRAPHS, _SIGNATURES = 2, 7  # fields of Model
_KEY, _SUBGRAPH = 2, 4  # fields of SignatureDef


class Content:
    """A model in memory.

    Attributes:
        names: of its signatures; none of what is no model.
        divisible: whether each can be shown alone: every subgraph is a signature, and none calls another.
    """

    def __init__(self, artifact: bytes) -> None:
        """Look into a model.

        Args:
            artifact: its content. It is this object's from now on: what it holds changes.
        """
        self._bytes, self.divisible = artifact, False
        self.names: tuple[str, ...] = ()
        self._places = dict[str, tuple[int, int]]()
        with suppress(struct.error, UnicodeDecodeError):  # what is no model is LiteRT's to refuse
            self._look()

    def only(self, name: str) -> bytes:
        """The model with this signature and its subgraph alone, or as it is if it is not divisible.

        That holds until the next call. An interpreter reads the list of subgraphs when it is made; of what it reads
        later, the weights, nothing changes.
        """
        if not self.divisible:
            return self._bytes
        subgraph, signature = self._places[name]
        for vector, table in ((self._subgraphs, subgraph), (self._signatures, signature)):
            self._write(vector, 1)
            self._write(vector + 4, table - (vector + 4))
        index = self._field(signature, _SUBGRAPH)
        if index is not None:
            self._write(index, 0)
        return self._bytes

    def _look(self) -> None:
        model = self._number(0)
        subgraphs, signatures = self._field(model, _SUBGRAPHS), self._field(model, _SIGNATURES)
        if subgraphs is None or signatures is None:
            return
        self._subgraphs, self._signatures = self._at(subgraphs), self._at(signatures)
        graphs, tables = list(self._tables(self._subgraphs)), list(self._tables(self._signatures))
        indexes = [0 if (at := self._field(table, _SUBGRAPH)) is None else self._number(at) for table in tables]
        self.names = tuple(self._text(table) for table in tables)
        self.divisible = sorted(indexes) == list(range(len(graphs)))
        if self.divisible:
            found = zip(self.names, indexes, tables, strict=True)
            self._places = {name: (graphs[index], table) for name, index, table in found}

    def _number(self, at: int) -> int:
        found: int = struct.unpack_from("<I", self._bytes, at)[0]
        return found

    def _at(self, place: int) -> int:
        """What an offset at a place points to."""
        return place + self._number(place)

    def _field(self, table: int, number: int) -> int | None:
        """Where a field of a table lies; None if it has its default."""
        virtual = table - int(struct.unpack_from("<i", self._bytes, table)[0])
        size, place = int(struct.unpack_from("<H", self._bytes, virtual)[0]), 4 + 2 * number
        offset = int(struct.unpack_from("<H", self._bytes, virtual + place)[0]) if place < size else 0
        return table + offset if offset else None

    def _tables(self, vector: int) -> Iterator[int]:
        for index in range(self._number(vector)):
            yield self._at(vector + 4 + 4 * index)

    def _text(self, table: int) -> str:
        place = self._field(table, _KEY)
        if place is None:
            return ""
        start = self._at(place)
        return self._bytes[start + 4 : start + 4 + self._number(start)].decode()

    def _write(self, at: int, number: int) -> None:
        """Into the bytes themselves: LiteRT takes nothing that may be written to, and a copy would be all of it."""
        address = ctypes.cast(ctypes.c_char_p(self._bytes), ctypes.c_void_p).value
        assert address is not None
        ctypes.memmove(address + at, struct.pack("<I", number), 4)
