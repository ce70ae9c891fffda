"""The precisions of TFLite, by ai-edge-quantizer: which operators hold and compute what."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
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
"""Operators that int8-static computes in integers. Integer sums of residuals ruin a transformer, integer products of
attention are slower than float ones on XNNPACK, and it has no integer GELU; docs/export.md has figures."""

_BLOCKS = {_Operators.FULLY_CONNECTED: 32, _Operators.EMBEDDING_LOOKUP: 64}
"""Weights of four bits that share a scale."""

Recipe = list[dict[str, Any]]


def quantized(exported: bytes, precision: Precision) -> bytes:
    """A float32 model in ``fp16``, ``int8-dynamic`` or ``int4-weights``.

    Args:
        exported: the TFLite model, with the names that the converter gave its tensors.
        precision: which.

    Raises:
        ExportFailed: the quantizer failed.
    """
    return _applied(exported, _RECIPES[precision](exported), None, precision)


def static(exported: bytes, ranges: Mapping[str, Range], scopes: Sequence[str], kinds: Sequence[Any] = STATIC) -> bytes:
    """A float32 model in ``int8-static``: of ``int8-dynamic``, but where operators are to compute in integers alone.

    Args:
        exported: as in ``quantized``.
        ranges: of what those operators read and give, by the tensor's name.
        scopes: names of what those operators give.
        kinds: of operators to look for these names among.

    Raises:
        ExportFailed: the quantizer failed.
    """
    manager = recipe_manager.RecipeManager()
    for operator in (_Operators.FULLY_CONNECTED, _Operators.EMBEDDING_LOOKUP):
        manager.add_dynamic_config(".*", operator, 8)
    for operator in kinds if scopes else ():
        manager.add_static_config(f"^(?:{'|'.join(map(re.escape, scopes))});?$", operator, 8, 8)
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


def _half(exported: bytes) -> Recipe:
    """float16 weights, widened when the model is loaded."""
    del exported
    manager = recipe_manager.RecipeManager()
    for operator in (_Operators.FULLY_CONNECTED, _Operators.EMBEDDING_LOOKUP):
        manager.add_weight_only_config(".*", operator, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)
    found: Recipe = manager.get_quantization_recipe()
    return found


def _int8(exported: bytes) -> Recipe:
    """Signed weights with one scale an output; activations with one scale a row, quantized as it runs."""
    del exported
    found: Recipe = recipe.dynamic_wi8_afp32()
    return found


def _int4(exported: bytes) -> Recipe:
    """Four bits, in blocks that share a scale; activations are quantized to eight bits as it runs.

    Weights that no whole number of blocks fills have eight bits.
    """
    manager = recipe_manager.RecipeManager()
    for operator, names in _indivisible(exported).items():
        manager.add_dynamic_config(f"^(?:{'|'.join(map(re.escape, names))});?$", operator, 8)
    linear: Recipe = recipe.dynamic_wi4b32_afp32(operation_name=_Operators.FULLY_CONNECTED)
    lookup: Recipe = recipe.dynamic_wi4b64_afp32(operation_name=_Operators.EMBEDDING_LOOKUP)
    others: Recipe = manager.get_quantization_recipe()
    return linear + lookup + others  # the last that applies counts


def _indivisible(exported: bytes) -> dict[Any, list[str]]:
    """Of each kind of operator, those whose rows are no whole number of blocks: names of what they give."""
    model: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(exported))
    found = defaultdict[Any, list[str]](list)
    for graph in model.subgraphs:
        for operator in graph.operators:
            for kind, block in _BLOCKS.items():
                code = getattr(schema.BuiltinOperator, kind.name)
                if model.operatorCodes[operator.opcodeIndex].builtinCode == code:
                    if graph.tensors[operator.inputs[1]].shape[1] % block:
                        found[kind].append(graph.tensors[operator.outputs[0]].name.decode())
    return found


_RECIPES = {"fp16": _half, "int8-dynamic": _int8, "int4-weights": _int4}
