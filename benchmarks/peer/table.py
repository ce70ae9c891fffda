"""Who is measured, in the order of the tables."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BASE", "COMPRESSED", "OURS", "PEERS", "REFERENCE", "TEACHER", "Peer"]

BASE, TEACHER = "DistilBERT-base", "sst2-teacher"
REFERENCE, OURS, COMPRESSED = "PyTorch eager fp32", "edgelm auto", "edgelm compressed, auto"


@dataclass(frozen=True)
class Peer:
    """One row of the tables.

    Attributes:
        name: for people.
        family: module of this package.
        kind: of the family.
        environment: that it runs in; "" is edgelm's own.
        compressed: whether it starts from the compressed checkpoint, of the teacher alone.
    """

    name: str
    family: str
    kind: str
    environment: str = ""
    compressed: bool = False


PEERS = (
    Peer(REFERENCE, "pytorch", "fp32"),
    Peer("PyTorch eager bf16", "pytorch", "bf16"),
    Peer("torch.compile", "pytorch", "compile"),
    Peer("transformers.pipeline", "pipeline", "fp32"),
    Peer("Optimum fp32", "optimum", "fp32", "optimum"),
    Peer("Optimum int8 arm64", "optimum", "arm64", "optimum"),
    Peer("Optimum int8 avx2", "optimum", "avx2", "optimum"),
    Peer("Optimum int8 avx512_vnni", "optimum", "avx512_vnni", "optimum"),
    Peer("Olive optimize", "olive", "optimize", "olive"),
    Peer("Olive int8, passes for BERT", "olive", "int8", "olive"),
    Peer("OpenVINO fp32", "openvino", "fp32", "openvino"),
    Peer("OpenVINO bf16", "openvino", "bf16", "openvino"),
    Peer("OpenVINO int8, NNCF", "openvino", "int8", "openvino"),
    Peer("litert-torch fp32", "litert", "fp32"),
    Peer("ai-edge-quantizer int8", "litert", "int8"),
    Peer(OURS, "ours", "auto"),
    Peer("edgelm auto, from text", "ours", "texts"),
    Peer("edgelm ONNX Runtime fp32", "ours", "onnxruntime fp32"),
    Peer("edgelm ONNX Runtime int8", "ours", "onnxruntime int8-dynamic"),
    Peer("edgelm LiteRT fp32", "ours", "litert fp32"),
    Peer("edgelm LiteRT int8", "ours", "litert int8-dynamic"),
    Peer(COMPRESSED, "ours", "auto", compressed=True),
    Peer("edgelm compressed, ONNX Runtime int8", "ours", "onnxruntime int8-dynamic", compressed=True),
    Peer("edgelm compressed, LiteRT int8", "ours", "litert int8-dynamic", compressed=True),
)
