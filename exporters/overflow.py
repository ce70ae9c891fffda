"""Where float16 would overflow: the operators that make, or read, numbers near its largest.

Some encoders have a few neurons of huge output, which the next layer scales down again. Measured in float32, on texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgelm.exporters.onnx_pieces import inferred, serialized
from edgelm.exporters.ranges import spread
from edgelm.runtimes import Ids
from edgelm.runtimes.given import held
from edgelm.text import padded

__all__ = ["MOST", "overflowing", "probes"]

MOST = float(np.finfo(np.float16).max) / 2
"""Half of the largest, since not every text is seen here."""

_TEXTS = 32


def overflowing(model: ModelProto, rows: Sequence[Ids], *, tokens: int = 0) -> tuple[str, ...]:
    """The names of the operators to be left in float32, in the model's order.

    Args:
        model: in float32, with ``input_ids`` and ``attention_mask``; every operator has a name.
        rows: token ids, int32, shape (tokens,) each; 32 of them are run.
        tokens: to pad every row to, where the model takes no other length or what it makes of padding is large.
    """
    large = {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and _peak(t) > MOST}
    large |= _seen(model, rows, tokens)
    return tuple(node.name for node in model.graph.node if large.intersection((*node.input, *node.output)))


def probes(vocab: int, limit: int) -> list[Ids]:
    """Rows of any tokens, where there are no texts.

    Args:
        vocab: number of ids.
        limit: longest row, in tokens.
    """
    random, lengths = np.random.default_rng(0), sorted({min(length, limit) for length in (4, 16, 64, 128)})
    return [random.integers(0, vocab, length, np.int32) for length in lengths]


def _peak(tensor: TensorProto) -> float:
    return float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))


def _seen(model: ModelProto, rows: Sequence[Ids], tokens: int) -> set[str]:
    """Results of operators that are larger than ``MOST`` on some row."""
    known = {value.name for value in model.graph.output}
    inside = [value.name for value in inferred(model) if value.type.tensor_type.elem_type == TensorProto.FLOAT]
    names = [name for name in inside if name not in known]
    watched, given = ModelProto(), held(serialized(model))
    watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    content = given.content + watched.SerializeToString()  # whoever reads two messages merges them [protobuf, encoding]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    given.tell_(options)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    large = set[str]()
    for row in spread(rows, _TEXTS):
        ids, mask = padded([row], 0, tokens or len(row))
        feed = {"input_ids": ids, "attention_mask": mask}
        found = session.run(names, feed)
        large |= {name for name, value in zip(names, found, strict=True) if np.abs(value).max(initial=0.0) > MOST}
    return large
