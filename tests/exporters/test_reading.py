"""Our own TFLite artifacts, read by somebody else: tf2onnx reads the file, ONNX Runtime runs what it found there."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pytest
import tiny
import torch
from ai_edge_litert.tools import flatbuffer_utils
from torch import nn

from edgelm.errors import DataError
from edgelm.exporters import tflite
from edgelm.exporters.foreign.signatures import alone, parsed, signatures
from edgelm.exporters.onnx_graph import symmetric
from edgelm.exporters.tflite_graph import inline
from edgelm.manifest import Precision, TaskName
from edgelm.model import Encoder, EncoderConfig
from edgelm.runtimes import Ids

pytestmark = pytest.mark.slow  # for the import of TensorFlow
LENGTH = 16
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Case:
    model: Encoder
    lengths: tuple[int, ...]
    artifacts: dict[Precision, bytes]


@pytest.fixture(scope="module", params=get_args(TaskName))
def case(request: pytest.FixtureRequest) -> Case:
    """A random encoder of one layer for each task, that of questions and answers with BERT's token types.

    Two have attention, one in the first row alone and one in all; the others, which differ by their heads, have none.
    """
    torch.manual_seed(0)
    attention = request.param in ("text-classification", "question-answering")
    made = Encoder(
        EncoderConfig(
            vocab_size=tiny.vocab_size(),
            dim=32,
            head_dim=8,
            heads=(4 if attention else 0,),
            ffn=(48,),
            max_positions=LENGTH,
            labels=tiny.LABELS if request.param.endswith("classification") else (),
            task=request.param,
            mask_token_id=4,
            normalize=True,
            separator_id=3 if request.param == "question-answering" else None,
        )
    )
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "norm" in name:  # its bias goes into that of the next layer, by weights that are not rounded yet
                continue
            wide = parameter.ndim > 1 or "embeddings" in name
            parameter.normal_(0.0, 0.3 if wide else 1.0)  # biases too: tf2onnx has lost them before
    lengths = (8, LENGTH) if request.param == "text-classification" else (LENGTH,)
    return Case(made.eval(), lengths, tflite.export(made, ("fp32", "int8-dynamic"), lengths))


@pytest.fixture(scope="module")
def reading(tensorflow: object) -> Any:
    from edgelm.exporters import reading

    return reading


@pytest.fixture
def rows() -> list[Ids]:
    return [tiny.ids(1, n, seed=n).numpy().astype(np.int32)[0] for n in (2, 7, 9, LENGTH)] + [
        np.array([2, 7, 3, 8, 9, 3], np.int32)  # two texts with separators
    ]


def test_fp32_read_by_tf2onnx_gives_the_modules_outputs(case: Case, reading: Any, rows: list[Ids]) -> None:
    for length in case.lengths:
        fitting = [row for row in rows if len(row) <= length]
        assert reading.difference(case.model, case.artifacts["fp32"], length, fitting) < TOLERANCE


def test_int8_read_by_tf2onnx_gives_the_outputs_of_rounded_weights(case: Case, reading: Any, rows: list[Ids]) -> None:
    """Of the module with each weight rounded by numpy to 8 bits, one scale a row, activations in float32."""
    rounded = copy.deepcopy(case.model)
    with torch.no_grad():
        for module in rounded.modules():
            if isinstance(module, nn.Linear) or module is rounded.embeddings.word:
                codes, scale = symmetric(module.weight.numpy(), 1)
                module.weight.copy_(torch.from_numpy(codes * scale))
    artifact = case.artifacts["int8-dynamic"]
    assert reading.difference(rounded, artifact, LENGTH, rows) < TOLERANCE
    assert reading.difference(case.model, artifact, LENGTH, rows) > 10 * TOLERANCE


@pytest.mark.parametrize("case", ["text-classification"], indirect=True)
def test_a_wrong_constant_in_the_file_is_seen(case: Case, reading: Any, rows: list[Ids]) -> None:
    model = parsed(case.artifacts["fp32"], "ours")
    graph = model.subgraphs[0]
    layer = next(
        one for one in graph.operators if flatbuffer_utils.opcode_to_name(model, one.opcodeIndex) == "FULLY_CONNECTED"
    )
    buffer = model.buffers[graph.tensors[layer.inputs[1]].buffer]
    buffer.data = (np.asarray(buffer.data, np.uint8).view(np.float32) * np.float32(1.5)).view(np.uint8)
    assert reading.difference(case.model, inline(model), LENGTH, rows) > 10 * TOLERANCE
    buffer.data = np.full_like(buffer.data.view(np.float32), np.nan).view(np.uint8)
    assert reading.difference(case.model, inline(model), LENGTH, rows) == np.inf


@pytest.mark.parametrize("case", ["text-classification"], indirect=True)
def test_a_signature_alone_has_its_names_and_nothing_else(case: Case) -> None:
    model = parsed(alone(case.artifacts["int8-dynamic"], f"tokens_{LENGTH}"), "ours")
    assert len(model.subgraphs) == 1
    (one,) = signatures(model)
    assert set(one.inputs) == {"input_ids", "attention_mask"}
    assert list(one.outputs) == [case.model.head.OUTPUT]
    names = [tensor.name for tensor in model.subgraphs[0].tensors]
    assert len(set(names)) == len(names)


def test_no_text_is_no_reading(reading: Any, model: Encoder) -> None:
    with pytest.raises(DataError, match="expected at least one, found none"):
        reading.difference(model, b"", 8, [])
