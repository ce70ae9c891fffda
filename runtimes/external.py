"""An ONNX model without its weights: each is referred to as external data, where it lies in a file.

ONNX Runtime copies what is in a model twice before it packs it for its kernels. External data it maps, packs, and needs
no more. The file is the bundle itself, whose entries lie in it as they are.

A model is a protobuf message (https://protobuf.dev/programming-guides/encoding), and its fields are those of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. Only its outermost levels are read, so no package is needed.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

from edgelm.bundle import Region
from edgelm.errors import BundleError

__all__ = ["LEAST", "referring"]

LEAST = 1024
"""Bytes; what is smaller stays in the model."""

_GRAPH, _INITIALIZER = 7, 5
_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION, _EXTERNAL = 9, 13, 14, 1
_KEY, _VALUE = 1, 2
_VARINT, _BYTES = 0, 2  # wire types; 1 and 5 are of 8 and 4 bytes


def referring(region: Region) -> bytes:
    """The model that lies in a region, with references to the region's file in place of its weights.

    Args:
        region: an ONNX model, in one file.

    Raises:
        BundleError: it is not a protobuf message.
    """
    with region.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        parts = list[bytes]()
        try:
            for number, begin, value, end in _fields(content, region.offset, region.offset + region.size):
                if number == _GRAPH:
                    parts.append(_written(_GRAPH, b"".join(_graph(content, value, end, region.path.name))))
                else:
                    parts.append(content[begin:end])
        except (IndexError, ValueError) as exc:
            raise BundleError(f"{region.path}: expected an ONNX model, found something else ({exc})") from exc
    return b"".join(parts)


def _graph(content: mmap.mmap, at: int, end: int, location: str) -> Iterator[bytes]:
    for number, begin, value, after in _fields(content, at, end):
        if number == _INITIALIZER and after - value >= LEAST:
            yield _written(_INITIALIZER, b"".join(_tensor(content, value, after, location)))
        else:
            yield content[begin:after]


def _tensor(content: mmap.mmap, at: int, end: int, location: str) -> Iterator[bytes]:
    fields = list(_fields(content, at, end))
    raw = next((field for field in fields if field[0] == _RAW_DATA and field[3] - field[2] >= LEAST), None)
    if raw is None:
        yield content[at:end]
        return
    _, _, value, after = raw
    for number, begin, _, stop in fields:
        if number not in (_RAW_DATA, _DATA_LOCATION):  # some say that theirs is the default
            yield content[begin:stop]
    place = {"location": location, "offset": str(value), "length": str(after - value)}
    for key, what in place.items():
        yield _written(_EXTERNAL_DATA, _written(_KEY, key.encode()) + _written(_VALUE, what.encode()))
    yield _varint(_DATA_LOCATION << 3 | _VARINT) + _varint(_EXTERNAL)


def _fields(content: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(number, where the field begins, where its value does, where it ends) of each field of a message.

    Raises:
        IndexError: it goes on behind the end of the file.
        ValueError: it is none.
    """
    while at < end:
        begin = at
        key, at = _read(content, at)
        match key & 7:
            case 0:
                value, (_, at) = at, _read(content, at)
            case 1:
                value, at = at, at + 8
            case 2:
                size, value = _read(content, at)
                at = value + size
            case 5:
                value, at = at, at + 4
            case wire:
                raise ValueError(f"a field of wire type {wire}")
        if at > end:
            raise ValueError(f"a field that ends {at - end} bytes behind its message")
        yield key >> 3, begin, value, at


def _read(content: mmap.mmap, at: int) -> tuple[int, int]:
    """A varint, and where it ends."""
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _written(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value
