"""The precisions of TFLite, by ai-edge-quantizer: which operators hold and compute what."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert.tools import flatbuffer_utils

from edgelm.errors import ExportFailed
from edgelm.exporters.quiet import mute, quiet
from edgelm.exporters.ranges import Range
from edgelm.manifest import Precision

with mute(), quiet("torchao", "torch.utils._pytree"):
    from ai_edge_quantizer import qtyping, quantizer, recipe, recipe_manager
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

__all__ = ["STATIC", "quantized", "static"]

_Operators = qtyping.TFLOperationName
STATIC = (_Operators.FULLY_CONNECTED,)
"""Operators that int8-static computes in integers. Integer sums of residuals and an integer softmax ruin a transformer
(docs/export.md has by how much), and XNNPACK has no integer GELU."""

_BLOCKS = {_Operators.FULLY_CONNECTED: 32, _Operators.EMBEDDING_LOOKUP: 64}
"""Weights of four bits that share a scale."""

Recipe = list[dict[str, Any]]


def quantized(exported: bytes, precision: Precision) -> tuple[bytes, tuple[str, ...]]:
    """A float32 model in ``fp16``, ``int8-dynamic`` or ``int4-weights``, and what is to be said of it.

    Args:
        exported: the TFLite model, with the names that the converter gave its tensors.
        precision: which.

    Raises:
        ExportFailed: the quantizer failed.
    """
    if precision == "fp16":
        return _applied(exported, _half(), None, precision), ()
    if precision == "int8-dynamic":
        return _applied(exported, recipe.dynamic_wi8_afp32(), None, precision), ()
    model: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(exported))
    whole, notes = _indivisible(model), tuple[str, ...]()
    if whole:
        count = sum(map(len, whole.values())) // len(model.subgraphs)
        notes = (f"tables that keep eight bits, since their rows are no whole number of blocks of 32 or 64: {count}",)
    return _applied(exported, _int4(whole), None, precision), notes


def static(exported: bytes, ranges: Mapping[str, Range], scopes: Sequence[str]) -> bytes:
    """A float32 model in ``int8-static``: of ``int8-dynamic``, but where operators are to compute in integers alone.

    Args:
        exported: as in ``quantized``.
        ranges: of what those operators read and give, by the tensor's name.
        scopes: names of what those operators give.

    Raises:
        ExportFailed: the quantizer failed.
    """
    manager = recipe_manager.RecipeManager()
    for operator in (_Operators.FULLY_CONNECTED, _Operators.EMBEDDING_LOOKUP):
        manager.add_dynamic_config(".*", operator, 8)
    for operator in STATIC if scopes else ():
        manager.add_static_config(_exactly(scopes), operator, 8, 8)
    spans = {
        name: {"min": np.array([span.low], np.float32), "max": np.array([span.high], np.float32)}
        for name, span in ranges.items()
    }
    return _applied(exported, manager.get_quantization_recipe(), spans if scopes else None, "int8-static")


def _applied(exported: bytes, steps: Recipe, spans: Any, precision: Precision) -> bytes:
    try:
        # one of its bars cannot be turned off, and it warns of weights that signatures share and of its own interpreter
        with mute(), quiet(""):
            warnings.filterwarnings("ignore", "Warning: Enabling `experimental_preserve_all_tensors`", UserWarning)
            work = quantizer.Quantizer(exported, steps)
            content = work.quantize(spans, enable_progress_bar=False, enable_progress_report=False).quantized_model
    except Exception as exc:  # it passes on whatever its C++ parts raise
        raise ExportFailed(f"tflite {precision}: ai-edge-quantizer does not quantize the model: {exc}") from exc
    return bytes(content)


def _half() -> Recipe:
    """float16 weights, widened when the model is loaded."""
    manager = recipe_manager.RecipeManager()
    for operator in (_Operators.FULLY_CONNECTED, _Operators.EMBEDDING_LOOKUP):
        manager.add_weight_only_config(".*", operator, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)
    found: Recipe = manager.get_quantization_recipe()
    return found


def _int4(whole: Mapping[Any, Sequence[str]]) -> Recipe:
    """Four bits, in blocks that share a scale; activations are quantized to eight bits as it runs.

    Args:
        whole: what has eight bits instead; see ``_indivisible``.
    """
    manager = recipe_manager.RecipeManager()
    for operator, names in whole.items():
        manager.add_dynamic_config(_exactly(names), operator, 8)
    linear: Recipe = recipe.dynamic_wi4b32_afp32(operation_name=_Operators.FULLY_CONNECTED)
    lookup: Recipe = recipe.dynamic_wi4b64_afp32(operation_name=_Operators.EMBEDDING_LOOKUP)
    others: Recipe = manager.get_quantization_recipe()
    return linear + lookup + others  # the last that applies counts


def _indivisible(model: Any) -> dict[Any, list[str]]:
    """Of each kind of operator, those whose rows are no whole number of blocks: names of what they give."""
    found = defaultdict[Any, list[str]](list)
    kinds = {kind.name: (kind, block) for kind, block in _BLOCKS.items()}
    for graph in model.subgraphs:
        for operator in graph.operators:
            kind, block = kinds.get(flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex), (None, 1))
            if kind is not None and graph.tensors[operator.inputs[1]].shape[1] % block:
                found[kind].append(graph.tensors[operator.outputs[0]].name.decode())
    return found


def _exactly(names: Sequence[str]) -> str:
    """What the quantizer looks for among the names of what operators give."""
    return f"^(?:{'|'.join(map(re.escape, names))});?$"
