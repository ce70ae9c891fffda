"""Every precision of a model of TensorFlow: beside TensorFlow itself, and beside numpy with its weights rounded."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import tiny
import tiny_keras
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edgelm import data
from edgelm.errors import ExportFailed
from edgelm.exporters import Report, exporter, foreign, parity
from edgelm.exporters.foreign import Imported
from edgelm.exporters.foreign.companions import Companions, companions
from edgelm.exporters.foreign.signatures import parsed
from edgelm.exporters.foreign.tflite import written
from edgelm.exporters.onnx_int4 import int4_blocks
from edgelm.exporters.quiet import mute
from edgelm.exporters.tflite_graph import packed
from edgelm.manifest import Format, Precision
from edgelm.recipe import DEFAULT_GATES
from edgelm.runtimes import Ids, engine
from edgelm.text import Tokenizer as Texts

pytestmark = pytest.mark.slow  # for the import of TensorFlow

LENGTHS = (8, 32)
VARIANTS = [(form, precision) for form, several in foreign.PRECISIONS.items() for precision in several]
WITHIN: dict[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "int8-dynamic": 0.1, "int8-static": 0.15}
"""Of the largest logit, the largest difference; of four bits a third."""
Artifacts = dict[tuple[Format, Precision], bytes]


@pytest.fixture(scope="module")
def imported(keras_file: Path) -> Imported:
    return foreign.read(keras_file, companions(keras_file), LENGTHS)


@pytest.fixture(scope="module")
def rows() -> list[Ids]:
    return [tiny.ids(1, length, seed=length).numpy().astype(np.int32)[0] for length in (2, 5, 8, 9, 16, 31, 32)]


@pytest.fixture(scope="module")
def reports() -> list[Report]:
    return []


@pytest.fixture(scope="module")
def artifacts(imported: Imported, reports: list[Report]) -> Artifacts:
    texts = [tiny.ids(1, 3 + seed % 20, seed=100 + seed).numpy().astype(np.int32)[0] for seed in range(64)]
    return {
        (form, precision): artifact
        for form, several in foreign.PRECISIONS.items()
        for precision, artifact in imported.model.export(
            form, several, LENGTHS, calibration=texts, tell=reports.append
        ).items()
    }


@pytest.mark.parametrize(("form", "precision"), VARIANTS)
def test_each_answers_as_tensorflow(
    form: Format, precision: Precision, artifacts: Artifacts, imported: Imported, rows: list[Ids]
) -> None:
    session = engine(exporter(form).ENGINE).load(artifacts[form, precision], threads=1)
    found = parity.check(imported.model, session, rows, rows[:2])  # alone, and padded among others
    gate = msgspec.structs.replace(DEFAULT_GATES[precision], agreement=0.0)  # labels of a random model are near ties
    parity.enforce(found, gate, f"{form} {precision}")
    most = max(float(np.abs(one).max()) for one in parity.outputs(imported.model, rows))
    assert found.max_abs_diff < WITHIN.get(precision, 0.33) * most
    assert precision == "fp32" or found.max_abs_diff > 1e-6  # or it is fp32 under another name


def test_fp16_leaves_in_float32_what_it_has_to_and_tells_what_overflows(
    artifacts: Artifacts, reports: list[Report]
) -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(artifacts["onnx", "fp16"])).graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    found = {(node.op_type, types.get(node.input[0])) for node in graph.node}
    float32, float16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    assert {("Softmax", float32), ("ReduceMean", float32), ("Sqrt", float32), ("MatMul", float16)} <= found
    assert not {("Softmax", float16), ("ReduceMean", float16), ("Sqrt", float16), ("MatMul", float32)} & found
    matrices = [tensor for tensor in graph.initializer if len(tensor.dims) == 2 and min(tensor.dims) > 1]
    assert {tensor.data_type for tensor in matrices} == {float16}
    (note,) = [note for one in reports if one.format == "onnx" for note in one.notes]
    assert note.startswith("left in float32, where float16 would overflow: ")
    assert note.count(",") == 1  # the sentence's own: one operator, the mask's constant of -1e9


def test_every_matrix_is_in_four_bits(artifacts: Artifacts) -> None:
    graph = onnx.load_from_string(artifacts["onnx", "int4-weights"]).graph
    kinds = Counter(node.op_type for node in graph.node)
    assert (kinds["MatMulNBits"], kinds["GatherBlockQuantized"]) == (8, 1)  # of attention 4, FFN 2, head 2
    constants = {tensor.name for tensor in graph.initializer}
    assert not [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in constants]
    assert sorted(_weights(artifacts["tflite", "int4-weights"])) == [
        ("EMBEDDING_LOOKUP", "INT8"),  # of a width of 32: no whole number of blocks of 64
        *[("FULLY_CONNECTED", "INT4")] * 7,
        ("FULLY_CONNECTED", "INT8"),  # its rows are of 48
    ]


@pytest.mark.parametrize("precision", ["int8-dynamic", "int8-static"])
def test_every_matrix_of_tflite_is_in_eight_bits(precision: Precision, artifacts: Artifacts) -> None:
    found = sorted(_weights(artifacts["tflite", precision]))
    assert found == [("EMBEDDING_LOOKUP", "INT8"), *[("FULLY_CONNECTED", "INT8")] * 8]


def _weights(artifact: bytes) -> Iterator[tuple[str, str]]:
    """Operators of the first signature that read a matrix of weights or look rows up, and its type."""
    model = parsed(artifact, "x")
    graph = model.subgraphs[0]
    for operator in graph.operators:
        kind = flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex)
        if kind in ("FULLY_CONNECTED", "EMBEDDING_LOOKUP", "GATHER"):
            table = graph.tensors[operator.inputs[kind != "GATHER"]]
            yield kind, flatbuffer_utils.type_to_name(table.type)


TABLE = np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32)
HEAD = np.random.default_rng(1).normal(size=(64, 3)).astype(np.float32)
Floats = NDArray[np.float32]


@pytest.fixture(scope="module", params=[8, None], ids=["one length", "any length"])
def bare(request: pytest.FixtureRequest, tensorflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    """A float32 TFLite file: the mean of rows of ``TABLE``, looked up by 64-bit ids, times ``HEAD``."""
    tf, specs = tensorflow, [tensorflow.TensorSpec((1, request.param), tensorflow.int64, name=one) for one in INPUTS]

    @tf.function(input_signature=specs)  # type: ignore[untyped-decorator]
    def call(ids: Any, mask: Any) -> dict[str, Any]:
        weight = tf.cast(mask, tf.float32)[:, :, None]
        mean = tf.reduce_sum(tf.gather(TABLE, ids) * weight, 1) / tf.reduce_sum(weight, 1)
        return {"logits": tf.matmul(mean, HEAD)}

    path = tmp_path_factory.mktemp("bare") / "model.tflite"
    with mute():
        made = [call.get_concrete_function()]
        path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions(made, tf.Module()).convert())
    beside = Companions(tiny.tokenizer_json(), tiny.vocab_size(), 0, None, "text-classification", ("a", "b", "c"))
    return foreign.read(path, beside, (4, 8))


INPUTS = ("input_ids", "attention_mask")


def _bytes(table: Floats, top: int) -> Floats:
    """Each row rounded to whole numbers from -top to top, times its scale."""
    scale = np.abs(table).max(1, keepdims=True) / np.float32(top)
    found: Floats = np.rint(table / scale) * scale
    return found


def _blocks(table: Floats, block: int) -> Floats:
    """Every so many numbers of a row rounded to whole ones from -7 to 7, times a scale that is a bfloat16."""
    blocks = table.reshape(-1, block)
    scale = (np.abs(blocks).max(1, keepdims=True) / np.float32(7)).astype(np.float32)
    scale = ((scale.view(np.uint32) + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    found: Floats = np.clip(np.rint(blocks / scale), -7, 7) * scale
    return found.reshape(table.shape)


def _onnx_blocks(table: Floats, block: int) -> Floats:
    codes, scales = int4_blocks(table, block)
    return ((codes.astype(np.float32) - 8) * scales[..., None]).reshape(len(table), -1)[:, : table.shape[1]]


Rounding = Callable[[Floats], Floats]
ROUNDED: dict[tuple[Format, Precision], tuple[Rounding, Rounding]] = {
    ("tflite", "fp16"): (lambda t: t.astype(np.float16).astype(np.float32),) * 2,
    ("onnx", "fp16"): (lambda t: t.astype(np.float16).astype(np.float32),) * 2,
    ("tflite", "int8-dynamic"): (lambda t: _bytes(t, 127),) * 2,
    ("onnx", "int8-dynamic"): (lambda t: _bytes(t, 127), lambda t: _bytes(t, 64)),
    ("tflite", "int4-weights"): (lambda t: _blocks(t, 64), lambda t: _blocks(t, 32)),
    ("onnx", "int4-weights"): (lambda t: _onnx_blocks(t, 128), lambda t: _onnx_blocks(t, 64)),
}
"""What the table and the head become, by numpy; docs/precisions.md."""


@pytest.mark.parametrize(("form", "precision"), ROUNDED)
def test_a_bare_file_answers_as_numpy_with_its_weights_rounded(
    form: Format, precision: Precision, bare: Imported
) -> None:
    artifact = bare.model.export(form, (precision,), bare.lengths)[precision]
    session = engine(exporter(form).ENGINE).load(artifact, threads=1)
    ids = np.random.default_rng(2).integers(0, len(TABLE), (9, 7), np.int32)
    mask = np.ones_like(ids)
    mask[1::2, 3:] = 0
    found = np.concatenate([session.run(ids[i : i + 1], mask[i : i + 1]) for i in range(len(ids))])
    look, multiply = ROUNDED[form, precision]
    expected, exact = _mean(look(TABLE), ids, mask) @ multiply(HEAD.T).T, _mean(TABLE, ids, mask) @ HEAD
    largest = float(np.abs(exact).max())
    # what activations lose: in float16, or in eight bits on the way into the head
    within = {"fp16": 2e-3}.get(precision, 1.5e-2) * largest
    np.testing.assert_allclose(found, expected, rtol=0, atol=within)
    np.testing.assert_allclose(session.run(ids, mask), expected, rtol=0, atol=within)
    assert precision != "int4-weights" or np.abs(found - exact).max() > 2 * within


def test_a_bare_file_is_calibrated(bare: Imported) -> None:
    random = np.random.default_rng(3)
    texts = [random.integers(0, len(TABLE), 1 + index % 8, np.int32) for index in range(64)]
    artifact = bare.model.export("tflite", ("int8-static",), bare.lengths, calibration=texts)["int8-static"]
    found = engine("litert").load(artifact, threads=1).run(texts[7][None], np.ones((1, 8), np.int32))
    expected = _mean(TABLE, texts[7][None], np.ones((1, 8), np.int32)) @ HEAD
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.1 * float(np.abs(expected).max()))


def test_signatures_with_other_operators_are_not_calibrated_together(artifacts: Artifacts, imported: Imported) -> None:
    model = parsed(artifacts["tflite", "fp32"], "x")
    graph = model.subgraphs[1]
    gelu = next(one for one in graph.operators if flatbuffer_utils.opcode_to_name(model, one.opcodeIndex) == "GELU")
    gelu.opcodeIndex = next(
        index for index in range(len(model.operatorCodes)) if flatbuffer_utils.opcode_to_name(model, index) == "RSQRT"
    )
    gelu.builtinOptionsType, gelu.builtinOptions = 0, None
    with pytest.raises(ExportFailed, match="expected the same operators in every signature"):
        written(packed(model), ("int8-static",), imported.model.head, LENGTHS, calibration=[], tell=lambda _: None)


def _mean(table: Floats, ids: Ids, mask: Ids) -> Floats:
    found: Floats = (table[ids] * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
    return found


@pytest.mark.data
def test_a_teacher_of_keras_hub_in_every_precision(
    teachers: Path, real_data: Path, tensorflow: Any, tmp_path: Path
) -> None:
    from edgelm.exporters import tensorflow as keras_reader

    folder = tmp_path / "teacher"
    shutil.copytree(teachers / "sst2-teacher", folder)
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(ids, key=lambda piece: ids[piece])), encoding="utf-8")
    beside = companions(folder)
    texts = data.read(real_data / "sst2" / "dev.jsonl", beside.labels).texts
    rows = Texts(beside.tokenizer, max_tokens=64, pad_token_id=0).encode(list(texts[:200]))
    found = keras_reader.read(tiny_keras.classifier(folder, labels=2), beside, (32, 64))
    sizes = {}
    for form, several in foreign.PRECISIONS.items():
        for precision, artifact in found.model.export(form, several, found.lengths, calibration=rows[100:]).items():
            session = engine(exporter(form).ENGINE).load(artifact, threads=1)
            close = parity.check(found.model, session, rows[:100], rows[:4])
            parity.enforce(close, DEFAULT_GATES[precision], f"{form} {precision}")
            sizes[form, precision] = len(artifact) / (4 * found.model.weights.numel())
            session.close()
    shares = {"fp32": 1.0, "fp16": 0.5, "int8-dynamic": 0.26, "int8-static": 0.27, "int4-weights": 0.145}
    assert sizes == {(form, precision): pytest.approx(shares[precision], rel=0.06) for form, precision in sizes}
