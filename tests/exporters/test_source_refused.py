"""What ``edgelm export`` refuses of models of TensorFlow, in this process: importing it takes longer than all else."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny

from edgelm import cli
from edgelm.bundle import Bundle
from edgelm.exporters.quiet import quiet

DEVICE = ("--device", "generic-x86_64", "--lengths", "8,16")
Capture = pytest.CaptureFixture[str]


def _export(*arguments: object) -> int:
    """The exit code."""
    try:
        cli.app(["export", *map(str, arguments), *DEVICE], standalone_mode=False)
    except SystemExit as exc:
        return int(exc.code or 0)
    return 0


def _refused(capfd: Capture, out: Path, *arguments: object) -> str:
    """The one line that is told, of code 2 and with nothing left behind."""
    before = sorted(out.parent.iterdir())
    assert _export(*arguments, "--out", out) == 2
    told = capfd.readouterr().err.splitlines()
    assert told[-1].startswith("edgelm: ")
    assert all(line.startswith(("no --data: ", "export ", "INFO: Created TensorFlow Lite")) for line in told[:-1])
    assert sorted(out.parent.iterdir()) == before
    return told[-1]


@pytest.fixture
def folder(keras_file: Path, tmp_path: Path) -> Path:
    """Where a model stands, with tokenizer and labels beside it."""
    names = ("model.keras", "tokenizer.json", "config.json")
    (tmp_path / "model").mkdir()
    for name in names:
        shutil.copy(keras_file.parent / name, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.slow  # for the import of TensorFlow
def test_what_the_model_lacks_is_told_in_one_line(folder: Path, keras_file: Path, capfd: Capture) -> None:
    import keras

    out = folder / "x.edgelm"
    source = folder / "model.keras"
    (folder / "labels.txt").write_text("a\nb\n", encoding="utf-8")
    assert "its output has 3 classes, found 2 labels" in _refused(capfd, out, source, "--labels", folder / "labels.txt")
    (folder / "tokenizer.json").rename(folder / "elsewhere.json")
    assert "no tokenizer.json stands beside it: give one with --tokenizer FILE" in _refused(capfd, out, source)
    beside = "--tokenizer", folder / "elsewhere.json"
    pixels = keras.Input((8, 8), name="pixels")
    with quiet():
        keras.Model(pixels, keras.layers.Dense(3)(pixels)).save(folder / "image.keras")
    assert "found pixels" in _refused(capfd, out, folder / "image.keras", *beside)
    ids, mask = (keras.Input((None,), dtype="int32", name=name) for name in ("input_ids", "attention_mask"))
    summed = keras.layers.Add()([ids, mask])
    keras.Model([ids, mask], summed).save(folder / "sum.keras")
    assert "expected of text-classification float32" in _refused(capfd, out, folder / "sum.keras", *beside)
    (folder / "broken.keras").write_bytes(source.read_bytes()[:999])
    assert "expected a Keras model" in _refused(capfd, out, folder / "broken.keras", *beside)


def test_what_is_wrong_with_a_file_is_told_in_one_line(
    artifacts: dict[Any, bytes], tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, content = tmp_path / "x.edgelm", artifacts["tflite", "fp32"]
    (tmp_path / "tokenizer.json").write_bytes(tiny.tokenizer_json())
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\n", encoding="utf-8")
    (tmp_path / "model.tflite").write_bytes(content)
    assert "give the labels with --labels FILE" in _refused(capfd, out, tmp_path / "model.tflite")
    (tmp_path / "half.tflite").write_bytes(content[: len(content) // 2])
    told = _refused(capfd, out, tmp_path / "half.tflite", "--labels", labels)
    assert "half.tflite: expected a TFLite model that LiteRT loads" in told
    assert "expected a .keras or .tflite file" in _refused(capfd, out, labels, "--labels", labels)
    for name in ("tensorflow", "keras", "tf2onnx"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("tensorflow", "foreign.tf_onnx"):
        monkeypatch.delitem(sys.modules, f"edgelm.exporters.{name}", raising=False)
        monkeypatch.delattr(f"edgelm.exporters.{name}", raising=False)
    (tmp_path / "model.keras").write_bytes(b"")
    for source in ("model.keras", "model.tflite"):
        told = _refused(capfd, out, tmp_path / source, "--labels", labels)
        assert "pip install 'edgelm[tensorflow]'" in told
    assert _export(tmp_path / "model.tflite", "--labels", labels, "--format", "tflite", "--out", out) == 0
    same, quantized = sorted(Bundle(out).manifest.variants, key=lambda one: one.precision)
    assert (same.precision, same.parity.max_abs_diff, same.lengths) == ("fp32", 0.0, (8, 16, 32, 64))
    assert Bundle(out).read(same.file) == content
    assert (quantized.precision, quantized.lengths) == ("int8-dynamic", same.lengths)
