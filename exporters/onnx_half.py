"""fp16 for GPUs: float16 weights, products and sums, with float32 where float16 has too few digits or too few powers.

That is inside two operators: LayerNormalization computes its variance in float32 (``stash_type``), where an epsilon of
1e-12 is not 0, and Attention its softmax (``softmax_precision``). The mask of -1e4 is a float16 as it is. And it is
where numbers were seen that float16 does not hold; see ``edgelm.exporters.overflow``.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence

from onnx import ModelProto, NodeProto, TensorProto, helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from edgelm.exporters.onnx_pieces import inferred

__all__ = ["half"]

_IN_FLOAT32 = {"Attention": "softmax_precision", "LayerNormalization": "stash_type"}


def half(model: ModelProto, kept: Sequence[str] = ()) -> ModelProto:
    """A copy of a float32 model that computes in float16; what goes in and comes out keeps its type.

    Args:
        model: in float32.
        kept: names of operators that stay in float32.
    """
    whole, known = copy.deepcopy(model), inferred(model)
    whole.graph.value_info.extend(known)  # the converter's own inference has protobuf's limit
    made: ModelProto = convert_float_to_float16(
        whole, keep_io_types=True, disable_shape_infer=True, node_block_list=list(kept)
    )
    values = (*model.graph.input, *known)
    _straighten_(made, {value.name for value in values if value.type.tensor_type.elem_type != TensorProto.FLOAT})
    for node in made.graph.node:
        name = _IN_FLOAT32.get(node.op_type)
        if name is not None:
            others = [attribute for attribute in node.attribute if attribute.name != name]
            del node.attribute[:]
            node.attribute.extend([*others, helper.make_attribute(name, TensorProto.FLOAT)])
    OnnxModel(made).topological_sort()  # casts around what stays in float32 were put behind those who read them
    return made


def _straighten_(model: ModelProto, others: Container[str]) -> None:
    """Between two operators in float32 the converter goes by float16, where what is large becomes infinite.

    Args:
        model: converted.
        others: what is an integer or a truth in it.
    """
    graph = model.graph
    halved = [node for node in graph.node if _casts(node, TensorProto.FLOAT16) and node.input[0] not in others]
    before = {node.output[0]: node.input[0] for node in halved}
    back = [node for node in graph.node if _casts(node, TensorProto.FLOAT) and node.input[0] in before]
    outputs = {value.name for value in graph.output}
    straight = {node.output[0]: before[node.input[0]] for node in back if node.output[0] not in outputs}
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = straight.get(name, name)
    for kind in (TensorProto.FLOAT, TensorProto.FLOAT16):  # the second of each pair first
        used = outputs.union(*(node.input for node in graph.node))
        for node in [node for node in graph.node if _casts(node, kind) and node.output[0] not in used]:
            graph.node.remove(node)


def _casts(node: NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and node.attribute[0].i == kind
