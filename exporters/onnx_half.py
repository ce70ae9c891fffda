"""fp16 for GPUs: float16 weights, products and sums, with float32 where float16 has too few digits or too few powers.

That is inside two operators: LayerNormalization computes its variance in float32 (``stash_type``), where an epsilon of
1e-12 is not 0, and Attention its softmax (``softmax_precision``). The mask of -1e4 is a float16 as it is.
"""

from __future__ import annotations

import copy

from onnx import ModelProto, TensorProto, helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

__all__ = ["half"]

_IN_FLOAT32 = {"Attention": "softmax_precision", "LayerNormalization": "stash_type"}


def half(model: ModelProto) -> ModelProto:
    """A copy of a float32 model that computes in float16; what goes in and comes out keeps its type."""
    made: ModelProto = convert_float_to_float16(copy.deepcopy(model), keep_io_types=True)
    for node in made.graph.node:
        name = _IN_FLOAT32.get(node.op_type)
        if name is not None:
            others = [attribute for attribute in node.attribute if attribute.name != name]
            del node.attribute[:]
            node.attribute.extend([*others, helper.make_attribute(name, TensorProto.FLOAT)])
    OnnxModel(made).topological_sort()  # casts around what stays in float32 were put behind those who read them
    return made
