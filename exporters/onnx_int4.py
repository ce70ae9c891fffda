"""int4-weights for ONNX Runtime: weights of four bits, in blocks with a scale each, by its own two operators.

They are for size. A product widens its weights as it runs, which no x86 processor has an instruction for.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgelm.exporters.onnx_graph import split_gemms_, take_lookup_

__all__ = ["BLOCK", "int4", "int4_blocks"]

BLOCK = 64
"""Weights of a linear layer that share a scale; of a row of the embeddings, twice as many."""

_DOMAIN = "com.microsoft"
_SHRINK = np.linspace(1.0, 0.7, 7, dtype=np.float32)
"""Scales to try, of the one at which no weight of the block is clipped."""


def int4(model: ModelProto) -> ModelProto:
    """A copy of a float32 model whose linear layers and word embeddings are held in four bits."""
    made = copy.deepcopy(model)
    _lookup_(made)
    split_gemms_(made)
    constants, nodes = {tensor.name for tensor in made.graph.initializer}, list[NodeProto]()
    for node in made.graph.node:
        nodes.append(_product(made.graph, node) if node.op_type == "MatMul" and node.input[1] in constants else node)
    kept = copy.deepcopy(nodes)
    del made.graph.node[:]
    made.graph.node.extend(kept)
    made.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return made


def int4_blocks(table: NDArray[np.float32], block: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Codes from 0 to 15, which mean (code - 8) * scale, with the scales that give the least squared error.

    Args:
        table: shape (rows, width); a row is filled up with zeros to a whole number of blocks.
        block: weights that share a scale.

    Returns:
        Codes, shape (rows, blocks, ``block``), and scales, shape (rows, blocks), each a bfloat16.
    """
    padded = np.pad(table, ((0, 0), (0, -table.shape[1] % block)))
    blocks = padded.reshape(len(table), -1, block)
    least, most = blocks.min(-1, keepdims=True), blocks.max(-1, keepdims=True)
    widest = np.where(-least > most, least, most) / -8  # the larger end has the code -8, of which there is no positive
    widest[widest == 0] = 1
    tried = [_bfloat16(widest * by) for by in _SHRINK]
    errors = np.stack([np.square(_rounded(blocks, scales) - blocks).sum(-1, keepdims=True) for scales in tried])
    scales = np.take_along_axis(np.stack(tried), errors.argmin(0)[None], 0)[0]
    return (_codes(blocks, scales) + 8).astype(np.uint8), scales[..., 0]


def _bfloat16(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest whose lower 16 bits are 0: KleidiAI, on ARM with dot products, cuts them off."""
    return ((scales.view(np.uint32) + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def _codes(blocks: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    codes: NDArray[np.float32] = np.clip(np.rint(blocks / scales), -8, 7)
    return codes


def _rounded(blocks: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    return _codes(blocks, scales) * scales


def _product(graph: GraphProto, node: NodeProto) -> NodeProto:
    x, weight = node.input
    table = _taken(graph, weight).T  # (outputs, inputs): blocks lie along the inputs
    codes, scales = int4_blocks(table, BLOCK)
    names = [f"{weight}_int4", f"{weight}_scales"]
    graph.initializer.append(numpy_helper.from_array(codes[..., ::2] | codes[..., 1::2] << 4, names[0]))
    graph.initializer.append(numpy_helper.from_array(scales, names[1]))
    outputs, inputs = table.shape
    sizes: dict[str, Any] = {"N": outputs, "K": inputs, "bits": 4, "block_size": BLOCK}
    sizes["accuracy_level"] = 4  # activations in int8 where the processor has products of them, or it would be slow
    return helper.make_node("MatMulNBits", [x, *names], node.output, node.name, domain=_DOMAIN, **sizes)


def _lookup_(model: ModelProto) -> None:
    position, gather, table = take_lookup_(model)
    weight, ids = gather.input
    codes, scales = int4_blocks(table, 2 * BLOCK)
    flat = codes.reshape(len(table), -1)[:, : table.shape[1]]
    packed = (flat[:, ::2] | flat[:, 1::2] << 4).tobytes()
    # names of their own: a masked language model's last matrix is the same table
    names = [f"{weight}_rows_int4", ids, f"{weight}_rows_scales", f"{weight}_rows_zero_points"]
    zeros = np.full((scales.size + 1) // 2, 0x88, np.uint8).tobytes()
    model.graph.initializer.extend(
        [
            helper.make_tensor(names[0], TensorProto.UINT4, table.shape, packed, raw=True),
            numpy_helper.from_array(scales, names[2]),
            helper.make_tensor(names[3], TensorProto.UINT4, scales.shape, zeros, raw=True),
        ]
    )
    axes: dict[str, Any] = {"gather_axis": 0, "quantize_axis": 1, "block_size": 2 * BLOCK}
    node = helper.make_node("GatherBlockQuantized", names, gather.output, gather.name, domain=_DOMAIN, **axes)
    model.graph.node.insert(position, node)


def _taken(graph: GraphProto, name: str) -> NDArray[np.float32]:
    """The value of a constant that is no longer needed."""
    tensor = next(tensor for tensor in graph.initializer if tensor.name == name)
    graph.initializer.remove(tensor)
    return numpy_helper.to_array(tensor)
