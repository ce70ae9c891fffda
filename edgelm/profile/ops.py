"""Where ONNX Runtime spends a request: the time of every operator, by its own profiler."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgelm.profile.inputs import Request
from edgelm.runtimes.given import Given

__all__ = ["Tensor", "Timed", "middle", "profile_ops", "read"]

_WARMUP = 20

Tensor = tuple[str, tuple[int, ...]]
"""Type, as ONNX Runtime names it, and shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One operator of the graph that ONNX Runtime really runs.

    Attributes:
        name: of the node.
        kind: operator type.
        us: time of a request in microseconds: the mean of its middle half, since what is longer was interrupted.
        inputs: with what is constant among them; weights that the engine has packed for itself are missing.
        outputs: likewise.
    """

    name: str
    kind: str
    us: float
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def profile_ops(given: Given, request: Request, *, threads: int, count: int = 200) -> list[Timed]:
    """Run a model with the profiler on.

    Args:
        given: an ONNX model with ``input_ids`` and ``attention_mask``.
        request: what to run.
        threads: within an operator.
        count: requests, after some that are not counted.

    Returns:
        Every operator, in the order in which they ran. The profiler counts whole microseconds and costs some itself:
        shares are what it is good for.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # on by default in the wheels from 1.29 on
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="edgelm-ops-") as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "ops"))
        given.tell_(options)
        session = onnxruntime.InferenceSession(given.content, options, providers=["CPUExecutionProvider"])
        feed = {"input_ids": request[0], "attention_mask": request[1]}
        for _ in range(_WARMUP + count):
            session.run(None, feed)
        path = Path(session.end_profiling())
        return read(json.loads(path.read_text(encoding="utf-8")), skip=_WARMUP)


def read(events: Sequence[Mapping[str, Any]], *, skip: int) -> list[Timed]:
    """The operators of a profile.

    Args:
        events: as ONNX Runtime writes them, in the format of Chrome's tracing.
        skip: requests at the beginning that are not counted.
    """
    times, last = defaultdict[str, list[int]](list), dict[str, Mapping[str, Any]]()
    for event in events:
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith("_kernel_time"):
            key = f"{event['args']['node_index']} {event['name']}"
            times[key].append(int(event["dur"]))
            last[key] = event
    ordered = sorted(last.items(), key=lambda item: int(item[1]["ts"]))
    return [_op(event, middle(times[key][skip:])) for key, event in ordered if len(times[key]) > skip]


def middle(times: Sequence[int]) -> float:
    """The mean of the middle half: finer than the median of whole microseconds, and as hard to disturb."""
    ordered, quarter = sorted(times), len(times) // 4
    return statistics.fmean(ordered[quarter : len(ordered) - quarter])


def _op(event: Mapping[str, Any], us: float) -> Timed:
    facts = event["args"]
    return Timed(
        name=str(event["name"]).removesuffix("_kernel_time"),
        kind=str(facts["op_name"]),
        us=us,
        inputs=_tensors(facts.get("input_type_shape", ())),
        outputs=_tensors(facts.get("output_type_shape", ())),
    )


def _tensors(told: Sequence[Mapping[str, Sequence[int]]]) -> tuple[Tensor, ...]:
    return tuple((kind, tuple(shape)) for one in told for kind, shape in one.items())
