"""Where LiteRT spends a request: each piece of its graph is timed as a model of its own.

LiteRT's Python interface has no profiler, and XNNPACK takes a graph as a whole and tells nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgelm.profile.inputs import Request
from edgelm.profile.ops import middle
from edgelm.profile.pieces import Piece, cut
from edgelm.profile.timing import interleaved
from edgelm.runs import Op

__all__ = ["chained", "profile_pieces"]

_WARMUP, _COUNT = 20, 200
_RESTED, _REST_S = 40, 0.005


def profile_pieces(artifact: bytes, request: Request, layers: int, *, threads: int) -> tuple[Op, ...]:
    """Time the pieces of a model, each in turn, in the order in which they follow each other.

    With one thread the caches hold at every piece what they do in a request. With several, LiteRT's idle threads spin
    on the cores that the next piece needs, so each is timed after a rest, and right after it ran once.

    Args:
        artifact: a TFLite model with signatures such as ``tokens_32``.
        request: one text of any length that a signature takes; it is padded.
        layers: of the model.
        threads: of XNNPACK.

    Returns:
        One entry a piece. What a call of LiteRT costs is in each of them, some microseconds.

    Raises:
        DataError: see ``cut``.
    """
    found = cut(artifact, request[0].shape[1], layers)
    feed = dict[int, Any]()
    for tensor, given in zip((found.input_ids, found.attention_mask), request, strict=True):
        feed[tensor] = np.zeros((1, found.tokens), np.int32)
        feed[tensor][0, : given.shape[1]] = given[0]
    calls = {index: one.invoke for index, (one, _) in enumerate(chained(found.pieces, feed, threads))}
    count, rest_s = (_RESTED, _REST_S) if threads > 1 else (_COUNT, 0.0)
    samples = interleaved(calls, warmup=_WARMUP, seconds=0.0, min_count=count, rest_s=rest_s)
    return tuple(
        Op(
            layer=piece.layer,
            name=piece.name,
            kind=piece.kind,
            us=middle(samples[index]) / 1e3,
            macs=piece.macs,
            bytes=piece.bytes,
            int8=piece.int8,
        )
        for index, piece in enumerate(found.pieces)
    )


def chained(pieces: Sequence[Piece], feed: Mapping[int, Any], threads: int) -> Iterator[tuple[Any, Mapping[int, Any]]]:
    """Start each piece and run it once on what the pieces before it gave.

    Args:
        pieces: in their order.
        feed: the inputs of the whole model, by tensor.
        threads: of XNNPACK.

    Yields:
        LiteRT's interpreter of each piece, and all that is known when it ran, by tensor.
    """
    from ai_edge_litert.interpreter import Interpreter

    known = dict(feed)
    for piece in pieces:
        one = Interpreter(model_content=piece.artifact, num_threads=threads)
        one.allocate_tensors()
        for tensor in piece.inputs:
            one.set_tensor(tensor, known[tensor])
        one.invoke()
        known |= {tensor: one.get_tensor(tensor) for tensor in piece.outputs}
        yield one, known
