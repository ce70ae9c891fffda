"""An ONNX model without its weights: each is referred to as external data, where it lies in a file.

ONNX Runtime copies what is in a model twice before it packs it for its kernels. External data it maps, packs, and needs
no more. The file is the bundle itself, whose entries lie in it as they are.

External data is also ONNX's form for what protobuf cannot hold, more than 2 GB
(https://onnx.ai/onnx/repo-docs/ExternalData.html). In memory such an artifact is one message all the same. In a bundle
it is two entries, the model and beside it a file of weights, so that others can read it once it is unpacked.

Fields are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. No package is needed to read them.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable

from edgelm.bundle import Parts, Region
from edgelm.errors import BundleError
from edgelm.runtimes.wire import Buffer, fields, message, text, varint

__all__ = ["LEAST", "apart", "joined", "referring", "shell"]

LEAST = 1024
"""Bytes; what is smaller stays in the model."""

_ALIGNED = 4096
"""Places in a file of weights are multiples of this, as ONNX recommends for mapping them."""

_GRAPH, _INITIALIZER = 7, 5
_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION, _EXTERNAL = 9, 13, 14, 1
_KEY, _VALUE = 1, 2

_Tensor = Callable[[Buffer, int, int], Parts]
"""What is to stand in place of a tensor, given as (content, where it begins, where it ends)."""


def referring(region: Region, weights: Region | None = None) -> bytes:
    """The model that lies in a region, with references to the region's file in place of its weights.

    Args:
        region: an ONNX model, in one file or without its weights.
        weights: where those lie, in the same file.

    Raises:
        BundleError: it is not a protobuf message, or refers to what is not in ``weights``.
    """

    def place(begin: int, _: int) -> tuple[str, int]:
        return region.path.name, begin

    def moved(offset: int, size: int) -> tuple[str, int]:
        if weights is None or not 0 <= offset <= offset + size <= weights.size:
            raise ValueError(f"{size} bytes at {offset}, which are not in the bundle")
        return region.path.name, weights.offset + offset

    with region.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        tensor = _outside(place, moved)
        return _rewritten(content, region.offset, region.offset + region.size, tensor, str(region.path))


def shell(artifact: bytes, name: str) -> bytes:
    """A model in memory, with references to itself in place of its weights.

    Args:
        artifact: an ONNX model.
        name: that it is referred to by.

    Raises:
        BundleError: it is not a protobuf message.
    """

    def place(begin: int, _: int) -> tuple[str, int]:
        return name, begin

    return _rewritten(artifact, 0, len(artifact), _outside(place), "the artifact")


def apart(file: str, artifact: bytes) -> dict[str, Parts]:
    """A model without its weights, and the file of weights, ``FILE.data``, each by name.

    Args:
        file: name of the model.
        artifact: its content.

    Raises:
        BundleError: it is not a protobuf message.
    """
    name, weights, view = f"{file}.data", Parts(), memoryview(artifact)
    size = 0

    def place(begin: int, end: int) -> tuple[str, int]:
        nonlocal size
        room = -size % _ALIGNED
        offset = size + room
        weights.extend([bytes(room), view[begin:end]])
        size = offset + end - begin
        return name, offset

    return {file: [_rewritten(artifact, 0, len(artifact), _outside(place), file)], name: weights}


def joined(model: bytes, weights: bytes) -> bytes:
    """The artifact that was taken apart.

    Args:
        model: without its weights.
        weights: content of the file that it refers to.

    Raises:
        BundleError: it is not a protobuf message, or refers to what is not in ``weights``.
    """
    view = memoryview(weights)

    def tensor(content: Buffer, at: int, end: int) -> Parts:
        parts = Parts()
        offset, size = _reference(content, at, end)
        if size is not None and not 0 <= offset <= offset + size <= len(weights):
            raise ValueError(f"{size} bytes at {offset}, which are not in the file of weights")
        for number, begin, _, stop in fields(content, at, end):
            if size is None or number not in (_EXTERNAL_DATA, _DATA_LOCATION):
                parts.append(content[begin:stop])
            elif number == _DATA_LOCATION:
                parts += message(_RAW_DATA, [view[offset : offset + size]])
        return parts

    return _rewritten(model, 0, len(model), tensor, "the model")


def _rewritten(content: Buffer, at: int, end: int, tensor: _Tensor, name: str) -> bytes:
    """A model with something else in place of its tensors.

    Args:
        content: that holds the model.
        at: where it begins.
        end: where it ends.
        tensor: gives what is to stand there.
        name: of the model, for the error.
    """
    parts = Parts()
    try:
        for number, begin, value, after in fields(content, at, end):
            if number == _GRAPH:
                parts += message(_GRAPH, _graph(content, value, after, tensor))
            else:
                parts.append(content[begin:after])
    except (LookupError, ValueError) as exc:
        raise BundleError(f"{name}: expected an ONNX model, found something else ({exc})") from exc
    return b"".join(parts)


def _graph(content: Buffer, at: int, end: int, tensor: _Tensor) -> Parts:
    parts = Parts()
    for number, begin, value, after in fields(content, at, end):
        if number == _INITIALIZER:
            parts += message(_INITIALIZER, tensor(content, value, after))
        else:
            parts.append(content[begin:after])
    return parts


def _nowhere(offset: int, size: int) -> tuple[str, int]:
    raise ValueError(f"{size} bytes at {offset} of another file")


_Place = Callable[[int, int], tuple[str, int]]


def _outside(place: _Place, moved: _Place = _nowhere) -> _Tensor:
    """Puts a reference in place of what a tensor holds.

    Args:
        place: a file's name and the place in it, given where the weights begin and end in the content.
        moved: the same, given the offset and the size that a tensor refers to already.
    """

    def tensor(content: Buffer, at: int, end: int) -> Parts:
        found = list(fields(content, at, end))
        raw = next((one for one in found if one[0] == _RAW_DATA and one[3] - one[2] >= LEAST), None)
        offset, size = _reference(content, at, end)
        if raw is not None:
            size = raw[3] - raw[2]
            location, offset = place(raw[2], raw[3])
        elif size is not None:
            location, offset = moved(offset, size)
        else:
            return [content[at:end]]
        replaced = (_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION)  # some say that theirs is the default
        parts: Parts = [content[begin:stop] for number, begin, _, stop in found if number not in replaced]
        for key, what in {"location": location, "offset": str(offset), "length": str(size)}.items():
            parts += message(_EXTERNAL_DATA, [text(_KEY, key), text(_VALUE, what)])
        return [*parts, varint(_DATA_LOCATION, _EXTERNAL)]

    return tensor


def _reference(content: Buffer, at: int, end: int) -> tuple[int, int | None]:
    """Offset and size of what a tensor refers to; no size if it refers to nothing.

    Raises:
        ValueError: it does not say which.
    """
    said = dict[bytes, bytes]()
    for number, _, value, after in fields(content, at, end):
        if number == _EXTERNAL_DATA:
            pair = {one: bytes(content[begin:stop]) for one, _, begin, stop in fields(content, value, after)}
            said[pair.get(_KEY, b"")] = pair.get(_VALUE, b"")
    return (int(said[b"offset"]), int(said[b"length"])) if said else (0, None)
