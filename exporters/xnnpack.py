"""Which operators of a TFLite model XNNPACK does not take: LiteRT runs them itself, by its own kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgelm.exporters.quiet import mute

__all__ = ["outside", "phrase", "walked"]

_DELEGATE = "DELEGATE"
"""What LiteRT names the node that stands for all that XNNPACK took."""

Node = Mapping[str, Any]
"""An operator as LiteRT tells it: ``op_name``, ``inputs`` and ``outputs``, which are numbers of tensors."""


def outside(artifact: bytes) -> Counter[str]:
    """The operators of the first signature that run outside XNNPACK, by kind; the others are the same at other lengths.

    Args:
        artifact: a TFLite model that LiteRT loads.
    """
    from ai_edge_litert.interpreter import Interpreter

    with mute():  # LiteRT announces the delegate
        interpreter = Interpreter(model_content=artifact, num_threads=1)
        interpreter.allocate_tensors()
    results = [int(one["index"]) for one in interpreter.get_output_details()]
    return Counter(walked(interpreter._get_ops_details(), results))  # LiteRT has no public way to ask


def walked(nodes: Sequence[Node], results: Sequence[int]) -> Iterator[str]:
    """The operators that LiteRT runs itself, in no order.

    The interpreter lists what was delegated beside the delegate. What really runs is found from the results backwards:
    a tensor comes from a delegate if one writes it, and otherwise from an operator.

    Args:
        nodes: all operators, and the delegates.
        results: numbers of the tensors that are asked for.
    """
    writers: dict[int, Node] = {}
    for node in sorted(nodes, key=lambda node: bool(node["op_name"] == _DELEGATE)):
        writers |= {int(tensor): node for tensor in node["outputs"]}
    left, ran = list(results), set[int]()
    while left:
        found = writers.get(left.pop())  # none writes constants and inputs
        if found is not None and id(found) not in ran:
            ran.add(id(found))
            left += [int(tensor) for tensor in found["inputs"]]  # -1 where there is none, which none writes either
            if found["op_name"] != _DELEGATE:
                yield str(found["op_name"])


def phrase(artifact: bytes) -> str:
    """The operators outside XNNPACK: ``CAST, 2 RESHAPE``; empty if there are none."""
    return ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in sorted(outside(artifact).items()))
