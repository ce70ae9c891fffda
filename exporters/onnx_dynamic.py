"""int8-dynamic for ONNX Runtime: signed weights with one scale an output, activations quantized as it runs, unsigned.

That pair of types reaches the VNNI and AMX kernels of x86, several times faster than any other pair. x86 without VNNI
adds two such products in 16 bits, which weights of eight bits overflow; within -64 and 64 they cannot.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
from onnx import ModelProto
from onnxruntime.quantization import QuantType, quantize_dynamic

from edgelm.errors import ExportFailed
from edgelm.exporters.onnx_graph import tidy_
from edgelm.exporters.quiet import quiet
from edgelm.manifest import Int8

__all__ = ["dynamic"]


def dynamic(model: ModelProto, int8: Int8) -> ModelProto:
    """A float32 model with its linear layers quantized; the activations are unsigned whatever ``int8`` says.

    Args:
        model: of any size, since it is written with external data; it has none of its weights afterwards.
        int8: types of integer products.

    Raises:
        ExportFailed: the quantizer failed.
    """
    with tempfile.TemporaryDirectory(prefix="edgelm-int8-") as folder, quiet(""):  # it logs to the root logger
        before, path = Path(folder, "before.onnx"), Path(folder, "model.onnx")
        try:
            onnx.save(model, before, save_as_external_data=True)
            quantize_dynamic(
                before,
                path,
                op_types_to_quantize=["MatMul", "Gemm"],  # with all types it would write an invalid QAttention
                per_channel=True,
                weight_type=QuantType.QInt8,
                reduce_range=int8.endswith("s7"),
                use_external_data_format=True,
                extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
            )
        except Exception as exc:  # it raises bare ones too
            raise ExportFailed(f"onnx int8-dynamic: onnxruntime does not quantize the model: {exc}") from exc
        quantized = onnx.load(path)
    tidy_(quantized)
    return quantized
