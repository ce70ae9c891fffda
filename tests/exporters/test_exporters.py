from __future__ import annotations

import importlib
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
import torch
from ai_edge_litert.interpreter import Interpreter

from edgelm import build, compression, recipe
from edgelm.bundle import Bundle
from edgelm.errors import ExportFailed, MissingExtra, RecipeError
from edgelm.exporters import EXPORTERS, Report, check_request, exporter, log, names, parity, xnnpack
from edgelm.exporters.trial import try_out
from edgelm.manifest import Precision
from edgelm.model import Encoder
from edgelm.runtimes import Ids, Session, engine

Variant = tuple[str, Precision, bytes]
INTERFACE = ({"input_ids": "int32", "attention_mask": "int32"}, {"logits": "float32"})


def _module(model: Encoder, ids: Ids, mask: Ids) -> Any:
    with torch.no_grad():
        return model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()


EIGHT_BITS = "tables that keep eight bits, since their rows are no whole number of blocks of 32 or 64: 1"
TOLERANCE: dict[Precision, float] = {
    "fp32": 3e-6,
    "fp16": 3e-3,
    "int8-dynamic": 0.15,
    "int8-static": 0.15,
    "int4-weights": 0.5,
}  # int8: a third of what rows differ by; weights that four bits can say are in test_int4.py


@pytest.mark.parametrize("tokens", [2, 7, 16, 20, 64])
def test_gives_the_modules_logits_without_padding(
    variant: Variant, session: Session, model: Encoder, tokens: int
) -> None:
    random = np.random.default_rng(tokens)
    for _ in range(4):
        ids = random.integers(0, model.config.vocab_size, (1, tokens), np.int32)
        expected = _module(model, ids, np.ones_like(ids))
        found = session.run(ids, np.ones_like(ids))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[variant[1]])


def test_gives_the_modules_logits_with_padding(variant: Variant, session: Session, model: Encoder) -> None:
    random = np.random.default_rng(1)
    ids = random.integers(0, model.config.vocab_size, (4, 20), np.int32)
    mask = np.ones_like(ids)
    for row, length in enumerate((20, 16, 7, 2)):
        ids[row, length:], mask[row, length:] = 0, 0
    expected = _module(model, ids, mask)
    ignoring = _module(model, ids, np.ones_like(mask))
    tolerance = TOLERANCE[variant[1]]
    if variant[1] == "int4-weights":  # so far from the module that it is compared with itself without padding
        alone = [row[None, : kept.sum()] for row, kept in zip(ids, mask, strict=True)]
        expected = np.concatenate([session.run(row, np.ones_like(row)) for row in alone])
        ignoring, tolerance = session.run(ids, np.ones_like(mask)), 0.1
    assert np.abs(expected - ignoring).max() > 2 * tolerance  # a mask that does nothing would be seen
    np.testing.assert_allclose(session.run(ids, mask), expected, rtol=0, atol=tolerance)


def test_inputs_and_outputs_have_the_same_names_and_types_in_every_format(variant: Variant) -> None:
    readers = {"onnx": _onnx_interface, "tflite": _tflite_interface}
    if variant[0] not in readers:
        pytest.skip(f"nothing reads {variant[0]} here")
    assert readers[variant[0]](variant[2]) == INTERFACE


def test_int8_is_much_smaller_than_fp32(artifacts: dict[tuple[str, Precision], bytes]) -> None:
    for form in EXPORTERS:
        whole = len(artifacts[form, "fp32"])
        assert len(artifacts[form, "int8-dynamic"]) < 0.36 * whole
        assert len(artifacts[form, "int8-static"]) < 0.36 * whole
        assert len(artifacts[form, "fp16"]) < 0.58 * whole
        assert len(artifacts[form, "int4-weights"]) < 0.26 * whole


def test_reports_each_artifact(artifacts: dict[tuple[str, Precision], bytes], reports: list[Report]) -> None:
    assert [(r.format, r.precision, r.bytes) for r in reports] == [(*key, len(a)) for key, a in artifacts.items()]
    assert all(report.nodes > 40 and report.seconds > 0 for report in reports)
    for report in reports:
        artifact = artifacts[report.format, report.precision]
        assert report.outside == (xnnpack.phrase(artifact) if report.format == "tflite" else "")
        keeps = (report.format, report.precision) == ("tflite", "int4-weights")
        assert report.notes == ((EIGHT_BITS,) if keeps else ())


def test_leaves_the_model_as_it_was(artifacts: object, model: Encoder) -> None:
    assert type(model.layers[0].attention).__module__ == "edgelm.model"
    assert model.embeddings.position.weight.shape == (80, 64)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("form", names())
def test_what_cannot_be_written_is_refused(form: str, model: Encoder) -> None:
    with pytest.raises(RecipeError, match=f"{form} is not written as int3: expected one of fp32, fp16, int8-dynamic"):
        exporter(form).export(model, ("int3",), (16,))  # type: ignore[arg-type]
    for lengths in ((), (1, 16), (16, 81)):
        with pytest.raises(RecipeError, match="expected at least one number of tokens from 2 to 80"):
            exporter(form).export(model, ("fp32",), lengths)
    check_request(form, ("fp32",), model, ("fp32",), (2, 80))
    with pytest.raises(RecipeError, match="int8-static is calibrated on real texts: expected --data FILE"):
        check_request(form, ("int8-static",), model, ("int8-static",), (2, 80))


def test_an_artifact_that_does_not_load_is_a_failed_export(variant: Variant, model: Encoder) -> None:
    form, precision, artifact = variant
    by = exporter(form).ENGINE
    with pytest.raises(ExportFailed, match=f"{form} {precision}: {by} does not load what was exported"):
        try_out(artifact[: len(artifact) // 100], f"{form} {precision}", [(1, 8)], model.head, by=by)


def test_an_artifact_of_another_model_is_a_failed_export(artifacts: dict[Any, bytes], model: Encoder) -> None:
    other = Encoder(type(model.config)(**(vars(model.config) | {"labels": ("a", "b")}))).head
    with pytest.raises(ExportFailed, match=r"logits of shape \(1, 3\).*expected float32, \(1, 2\)"):
        try_out(artifacts["onnx", "fp32"], "onnx fp32", [(1, 8)], other, by="onnxruntime")


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "litert_torch"):
        monkeypatch.setitem(sys.modules, name, None)
    for module in [name for name in sys.modules if name.startswith("edgelm.exporters.")]:
        monkeypatch.delitem(sys.modules, module)
    for form, name in (("onnx", "ONNX"), ("tflite", "TFLite")):
        with pytest.raises(MissingExtra, match=rf"exporting to {name} needs .*pip install 'edgelm\[export\]'"):
            exporter(form)


def test_a_format_may_be_added_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint(name="json", value="json", group="edgelm.exporters")
    monkeypatch.setattr("edgelm.exporters.entry_points", lambda group: [point] if group == "edgelm.exporters" else [])
    assert exporter("json") is importlib.import_module("json")
    assert names() == ["json", "onnx", "tflite"]
    with pytest.raises(RecipeError, match="expected one of json, onnx, tflite"):
        exporter("onxx")


def test_a_format_of_others_gets_into_a_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theirs = SimpleNamespace(ENGINE="onnxruntime", PRECISIONS=("fp32",), export=exporter("onnx").export)
    point = SimpleNamespace(name="theirs", load=lambda: theirs)
    monkeypatch.setattr("edgelm.exporters.entry_points", lambda group: [point] if group == "edgelm.exporters" else [])
    export = {"device": "generic-x86_64", "formats": ["theirs"], "precisions": ["fp32"]}
    located = recipe.of(export=export).with_model(str(tiny.distilbert(tmp_path / "checkpoint")))
    build.export(compression.compress(located), located, tmp_path / "made.edgelm")
    (variant,) = Bundle(tmp_path / "made.edgelm").manifest.variants
    assert (variant.format, variant.file, variant.engine) == ("theirs", "model.fp32.theirs", "onnxruntime")
    unknown = recipe.of(export={"device": "generic-x86_64", "formats": ["onxx"]}).with_model("nothing")
    with pytest.raises(RecipeError, match="no format named 'onxx': expected one of onnx, tflite, theirs"):
        build.source(unknown)


def test_the_log_has_the_figures_and_warns_of_notes(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="edgelm"):
        log(Report("onnx", "fp32", 1234, 56, 7.89, ("onnxsim's result was not kept: it broke",)))
    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        ("edgelm", "INFO", "onnx fp32: 1234 bytes, 56 nodes, 7.9 s"),
        ("edgelm", "WARNING", "onnx fp32: onnxsim's result was not kept: it broke"),
    ]


@pytest.mark.parametrize("form", names())
def test_a_model_without_any_attention_can_be_exported(form: str, rows: list[Ids]) -> None:
    model = tiny.encoder(heads=(0, 0), ffn=(16, 0))
    artifact = exporter(form).export(model, ("fp32",), (2, 16))["fp32"]
    session = engine(exporter(form).ENGINE).load(artifact, threads=1)
    short = [row[:16] % 50 for row in rows[:4]]
    assert parity.check(model, session, short, short).max_abs_diff < 3e-6


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(RecipeError, match="no format named 'onxx': expected one of onnx, tflite"):
        exporter("onxx")


def test_the_checkouts_folder_is_no_second_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(pytest.importorskip("edgelm").__path__[0] + "/.."))
    with pytest.raises(ImportError, match=r"use edgelm\.exporters"):
        importlib.import_module("exporters")


def _onnx_interface(artifact: bytes) -> tuple[dict[str, str], dict[str, str]]:
    graph = onnx.load_from_string(artifact).graph

    def types(values: Any) -> dict[str, str]:
        return {v.name: onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type).name for v in values}

    return types(graph.input), types(graph.output)


def _tflite_interface(artifact: bytes) -> tuple[dict[str, str], dict[str, str]]:
    interpreter = Interpreter(model_content=artifact)
    found = []
    for name in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(name)
        sides = runner.get_input_details(), runner.get_output_details()
        found.append(tuple({key: np.dtype(v["dtype"]).name for key, v in side.items()} for side in sides))
    assert all(one == found[0] for one in found)
    return found[0]  # type: ignore[return-value]
