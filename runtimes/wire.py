"""Protobuf's wire format, so far as a model's outermost levels need it, for messages of any size and without a package.

The format itself has no limit, the libraries that read and write it have one of 2 GB
(https://protobuf.dev/programming-guides/encoding, https://protobuf.dev/programming-guides/proto-limits).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator

from edgelm.bundle import Parts

__all__ = ["Buffer", "fields", "message", "text", "varint"]

Buffer = bytes | memoryview | mmap.mmap
"""What fields are read from."""

_VARINT, _BYTES = 0, 2  # wire types; 1 and 5 are of 8 and 4 bytes


def fields(content: Buffer, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(number, where the field begins, where its value does, where it ends) of each field of a message.

    Args:
        content: that holds the message.
        at: where the message begins.
        end: where it ends.

    Raises:
        IndexError: it goes on behind the end of the content.
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


def message(number: int, parts: Iterable[bytes | memoryview]) -> Parts:
    """A field whose value is a message, or bytes, or a text.

    Args:
        number: of the field.
        parts: of its value.
    """
    inside = list(parts)
    return [_varint(number << 3 | _BYTES) + _varint(sum(map(len, inside))), *inside]


def text(number: int, value: str) -> bytes:
    """A field whose value is a text."""
    return b"".join(message(number, [value.encode()]))


def varint(number: int, value: int) -> bytes:
    """A field whose value is a number that is not negative."""
    return _varint(number << 3 | _VARINT) + _varint(value)


def _read(content: Buffer, at: int) -> tuple[int, int]:
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
