"""Artifacts above protobuf's limit, which is set so low that a tiny model is: written, kept in two files, and run."""

from __future__ import annotations

import copy
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
from numpy.typing import NDArray

from edgelm import build, compression, exporters, recipe, runtimes, show
from edgelm.bundle import Bundle
from edgelm.errors import BundleDamaged, BundleError, EdgelmError, ExportFailed
from edgelm.exporters import Report
from edgelm.exporters import onnx as exporter
from edgelm.exporters.onnx_pieces import check, serialized
from edgelm.manifest import Precision, Variant
from edgelm.profile.inputs import token_ids
from edgelm.profile.ops import profile_ops
from edgelm.runtimes import given, ort
from edgelm.verify import verify

LIMIT = 10_000
ANY = {"max_abs_diff": 1e3, "agreement": 0.0, "kl": 1e3, "accuracy_loss": 100.0}  # the weights are random
FORMS: tuple[str, ...] = ("none", "deflate")


@pytest.fixture(scope="module", autouse=True)
def _low() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(given, "MOST_BYTES", LIMIT)
        yield


def located(place: Path, **export: Any) -> recipe.Located:
    pairs = [f"{first} {second}".strip() for first in tiny.TEXTS for second in tiny.TEXTS]
    texts = place / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in pairs), encoding="utf-8")
    wanted = {"device": "generic-x86_64", "lengths": [16], "formats": ["onnx"], **export}
    gates = {precision: ANY for precision in exporter.PRECISIONS}
    return recipe.of(export=wanted, gates=gates, data={"dev": str(texts)}).with_model(str(place / "checkpoint"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    tiny.distilbert(folder / "checkpoint")
    return folder


@pytest.fixture(scope="module")
def bundles(place: Path) -> dict[str, Bundle]:
    """Every precision, stored and deflated."""
    wanted = located(place, precisions=list(exporter.PRECISIONS))
    compressed = compression.compress(wanted)
    found = {}
    for form in FORMS:
        asked = located(place, precisions=list(exporter.PRECISIONS), compress=form)
        build.export(compressed, asked, place / f"{form}.edgelm")
        found[form] = Bundle(place / f"{form}.edgelm")
    return found


@pytest.fixture(params=exporter.PRECISIONS)
def precision(request: pytest.FixtureRequest) -> Precision:
    found: Precision = request.param
    return found


def variant(bundle: Bundle, precision: Precision) -> Variant:
    return next(one for one in bundle.manifest.variants if one.precision == precision)


def asked() -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    ids = tiny.ids(3, 9, seed=1).numpy().astype(np.int32)
    mask = np.ones_like(ids)
    mask[1:, 6:] = 0
    return ids, mask


def unpacked(bundle: Bundle, precision: Precision, folder: Path) -> Path:
    with zipfile.ZipFile(bundle.path) as archive:
        archive.extractall(folder)
    return folder / variant(bundle, precision).file


@pytest.mark.parametrize("form", FORMS)
def test_every_variant_is_two_entries_and_computes_what_the_module_does(form: str, bundles: dict[str, Bundle]) -> None:
    bundle = bundles[form]
    assert [one.precision for one in bundle.manifest.variants] == list(exporter.PRECISIONS)
    sizes = {name: len(bundle.read(name)) for name in bundle.downloads}
    for one in bundle.manifest.variants:
        assert one.files == (f"model.{one.precision}.onnx", f"model.{one.precision}.onnx.data")
        assert one.bytes == sum(sizes[name] for name in one.files)
        assert sizes[one.file] < 0.75 * one.bytes  # names and small weights; of a real model, a thousandth
    found = verify(bundle.path, threads=1)
    assert found["ok"], found
    assert {one["state"] for one in found["variants"]} == {"passed"}


@pytest.mark.parametrize("form", FORMS)
def test_unpacked_it_is_an_onnx_model_to_others(
    form: str, precision: Precision, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    path = unpacked(bundles[form], precision, tmp_path)
    onnx.checker.check_model(path, full_check=True)
    alone = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    ids, mask = asked()
    theirs = alone.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    ours = runtimes.load(bundles[form], variant(bundles[form], precision), threads=1).run(ids, mask)
    np.testing.assert_array_equal(ours, theirs)


def test_whole_it_is_what_was_exported(precision: Precision, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    path = unpacked(bundles["none"], precision, tmp_path)
    found = [given.whole(bundle, variant(bundle, precision)) for bundle in bundles.values()]
    read = onnx.load(path)
    for tensor in read.graph.initializer:
        tensor.ClearField("data_location")
    assert found[0] == found[1]
    assert onnx.load_model_from_string(found[0]) == read
    ids, mask = asked()
    ours = runtimes.load(bundles["none"], variant(bundles["none"], precision), threads=1).run(ids, mask)
    held = runtimes.engine("onnxruntime").load(found[0], threads=1)
    del found
    np.testing.assert_array_equal(held.run(ids, mask), ours)


def test_an_engine_of_others_is_given_the_whole(bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, one = bundles["none"], variant(bundles["none"], "fp32")
    seen, load = list[bytes](), ort.load

    def theirs(artifact: bytes, **how: Any) -> runtimes.Session:
        seen.append(artifact)
        return load(artifact, **how)

    monkeypatch.delattr(ort, "load_from")  # which they need not have
    monkeypatch.setattr(ort, "load", theirs)
    ids, mask = asked()
    assert runtimes.load(bundle, one, threads=1).run(ids, mask).shape == (3, 3)
    assert seen == [given.whole(bundle, one)]


def test_it_is_mapped_where_it_lies(bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = bundles["none"]
    monkeypatch.setattr(Bundle, "read", lambda *_: pytest.fail("it was read"))
    runtimes.load(bundle, variant(bundle, "fp32"), threads=1)
    region = bundle.region("model.fp32.onnx.data")
    assert region is not None
    assert region.offset % 4096 == 0


def test_nothing_is_left_of_it(bundles: dict[str, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for bundle in bundles.values():
        runtimes.load(bundle, variant(bundle, "fp32"), threads=1)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("form", FORMS)
def test_damage_is_found(form: str, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    whole, path = bundles[form], tmp_path / "x.edgelm"
    raw = bytearray(whole.path.read_bytes())
    with zipfile.ZipFile(whole.path) as archive:
        entry = archive.getinfo("model.int8-dynamic.onnx.data")
    raw[entry.header_offset + entry.compress_size] ^= 1  # behind the header, before the end
    path.write_bytes(raw)
    damaged = Bundle(path)
    with pytest.raises(BundleDamaged, match=r"model\.int8-dynamic\.onnx\.data is"):
        runtimes.load(damaged, variant(damaged, "int8-dynamic"), threads=1)
    found = verify(path, threads=1)
    assert [one["entry"] for one in found["entries"] if one["problem"]] == ["model.int8-dynamic.onnx.data"]
    assert [one["precision"] for one in found["variants"] if one["state"] == "failed"] == ["int8-dynamic"]


@pytest.mark.parametrize("name", ["model.fp16.onnx", "model.fp16.onnx.data"])
def test_what_is_missing_is_told(name: str, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    path = tmp_path / "x.edgelm"
    with zipfile.ZipFile(bundles["none"].path) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.namelist():
            if entry != name:
                new.writestr(entry, old.read(entry))
    with pytest.raises(BundleError, match=f"lists {name}, which it does not hold"):
        Bundle(path)


def test_operators_are_profiled(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["none"]
    request = token_ids(9, batch=1, vocab=bundle.manifest.model.vocab)
    for one in bundles.values():
        timed = profile_ops(given.opened(one, variant(one, "fp32")), request, threads=1, count=2)
        assert "Attention" in {op.kind for op in timed}


def test_sizes_count_both(bundles: dict[str, Bundle]) -> None:
    for form, bundle in bundles.items():
        for told, one in zip(show._variants(bundle, None), bundle.manifest.variants, strict=True):
            taken = [bundle.downloads[name] for name in one.files]
            assert told["download_bytes"] == sum(taken)
            assert (told["download_bytes"] < told["bytes"]) is (form == "deflate")


@pytest.fixture(scope="module")
def exported() -> tuple[dict[Precision, bytes], list[Report]]:
    told = list[Report]()
    return exporter.export(tiny.encoder(), ("fp32", "int8-dynamic"), (16,), tell=told.append), told


@pytest.fixture
def made(exported: tuple[dict[Precision, bytes], list[Report]]) -> onnx.ModelProto:
    return onnx.load_model_from_string(exported[0]["fp32"])


def test_onnxsim_is_left_out_and_said(exported: tuple[dict[Precision, bytes], list[Report]]) -> None:
    found, told = exported
    assert [report.bytes for report in told] == [len(artifact) for artifact in found.values()]
    assert min(report.bytes for report in told) > LIMIT
    assert [len(report.notes) for report in told] == [1, 0]
    assert told[0].notes[0].startswith("onnxsim was left out")


def test_written_by_pieces_it_is_what_protobuf_writes_at_once(made: onnx.ModelProto) -> None:
    made.graph.initializer[0].data_location = onnx.TensorProto.DEFAULT
    made.graph.initializer.append(onnx.helper.make_tensor("listed", onnx.TensorProto.FLOAT, (3,), (1, 2, 3)))
    made.graph.initializer.append(onnx.helper.make_tensor("empty", onnx.TensorProto.FLOAT, (0,), b"", raw=True))
    written = serialized(made)
    assert onnx.load_model_from_string(written) == made
    assert len(written) == len(made.SerializeToString()) == made.ByteSize()


def cut(made: onnx.ModelProto) -> None:
    tensor = max(made.graph.initializer, key=lambda one: len(one.raw_data) if len(one.raw_data) < LIMIT else 0)
    tensor.raw_data = tensor.raw_data[:-4]


def unknown(made: onnx.ModelProto) -> None:
    made.graph.node[3].input[0] = "nothing"


def mistyped(made: onnx.ModelProto) -> None:
    large = max(made.graph.initializer, key=lambda one: len(one.raw_data))
    large.data_type = onnx.TensorProto.INT32  # of the same size


@pytest.mark.parametrize("spoil", [cut, unknown, mistyped])
def test_what_is_not_sound_is_refused_whatever_its_size(spoil: Any, made: onnx.ModelProto) -> None:
    check(made, serialized(made))
    spoil(made)
    with pytest.raises((onnx.checker.ValidationError, onnx.shape_inference.InferenceError)):
        check(made, serialized(made))
    with pytest.raises(ExportFailed, match="onnx fp32: the ONNX checker refuses"):
        exporter._checked(copy.deepcopy(made), "fp32", tiny.encoder(), 16)


def test_too_large_for_tflite_is_refused_before_anything_is_written(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporters, "MOST_BYTES", LIMIT)
    monkeypatch.setattr(build, "Reference", lambda *_: pytest.fail("it was begun"))
    wanted = located(place, formats=["onnx", "tflite"])
    with pytest.raises(EdgelmError, match=r"tflite: the model's weights take .* GB at most: make it smaller") as caught:
        build.export(compression.compress(wanted), wanted, tmp_path / "x.edgelm")
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert not [*tmp_path.iterdir()]
    with pytest.raises(EdgelmError, match=r"tflite: the model's weights take"):
        exporters.exporter("tflite").export(tiny.encoder(), ("fp32",), (16,))


@pytest.mark.parametrize(
    ("file", "size", "names"),
    [("m.onnx", LIMIT, ["m.onnx"]), ("m.tflite", LIMIT + 1, ["m.tflite"]), ("m.other", LIMIT + 1, ["m.other"])],
)
def test_what_is_within_the_limit_or_no_onnx_is_one_entry(file: str, size: int, names: list[str]) -> None:
    content = bytes(size)
    assert given.entries(file, content) == {name: [content] for name in names}


def test_what_is_too_large_and_no_model_is_refused_in_one_line() -> None:
    for content in (b"\xff" * (LIMIT + 1), b"\x3a\xff\xff\xff\x7f" + bytes(LIMIT)):
        with pytest.raises(BundleError, match="expected an ONNX model, found something else") as caught:
            runtimes.engine("onnxruntime").load(content, threads=1)
        assert "\n" not in str(caught.value)
