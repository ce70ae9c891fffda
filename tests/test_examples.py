"""The scripts of examples/export, as people run them: a process, a checkpoint, a bundle that answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from transformers import DistilBertForSequenceClassification

import edgelm
from edgelm import devices
from edgelm.bundle import Bundle
from edgelm.text import Tokenizer

FOLDER = Path(__file__).parent.parent / "examples" / "export"
SCRIPTS = {
    "android-arm64": {("tflite", "int8-dynamic")},
    "browser": {("onnx", "int8-dynamic")},
    "jetson": {("onnx", "int8-dynamic"), ("tflite", "int8-dynamic")},
    "raspberry-pi": {("onnx", "int8-dynamic"), ("tflite", "int8-dynamic")},
    "x86-server": {("onnx", precision) for precision in devices.load("generic-x86_64").precisions},
}
TEXTS = ["turn the light on", "play music in paris", "what time is it"]


def export(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [str(FOLDER / f"{script}.sh"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PATH": path})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random DistilBERT that is sure of what it says, as a trained one is: it passes the default gates in int8."""
    folder = tiny.distilbert(tmp_path_factory.mktemp("sure") / "checkpoint")
    model = DistilBertForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.classifier.weight.mul_(0.02)
        model.classifier.bias.copy_(torch.tensor([0.0, 4.0, 0.0]))
    model.save_pretrained(folder)
    return folder


def test_there_is_a_script_for_every_family_and_the_readme_names_it() -> None:
    assert {path.stem for path in FOLDER.glob("*.sh")} == set(SCRIPTS)
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([\w-]+)\.sh`", readme, re.MULTILINE)) == set(SCRIPTS)


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_every_device_that_is_named_has_a_profile(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"--device ([\w-]+)", text) + re.findall(r"(?:raspberry-pi|android-cortex|jetson)-[\w-]+", text)
    assert set(named) - {f"{script}.sh" for script in SCRIPTS} <= set(devices.names())


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_a_script_makes_a_bundle_that_answers_as_the_original(script: str, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "made.edgelm"
    done = export(script, checkpoint, out, "--lengths", "16")  # one signature: less to wait for
    assert done.returncode == 0, done.stderr
    manifest = Bundle(out).manifest
    assert manifest.max_tokens == 16
    assert {(variant.format, variant.precision) for variant in manifest.variants} == SCRIPTS[script]
    original: Any = DistilBertForSequenceClassification.from_pretrained(checkpoint)  # in evaluation mode
    cut = Tokenizer((checkpoint / "tokenizer.json").read_bytes(), max_tokens=64, pad_token_id=0)
    for variant in manifest.variants:
        with edgelm.load(out, engine=variant.engine, precision=variant.precision, threads=1) as model:
            found = model.logits(TEXTS)
        with torch.no_grad():
            rows = [original(torch.from_numpy(ids[None].astype(np.int64))).logits[0] for ids in cut.encode(TEXTS)]
        np.testing.assert_allclose(found, np.stack(rows), rtol=0, atol=1e-4 if variant.precision == "fp32" else 0.1)


def test_the_last_device_counts(checkpoint: Path, tmp_path: Path) -> None:
    done = export("browser", checkpoint, tmp_path / "made.edgelm", "--device", "rasberry-pi-5")
    assert done.returncode == 2
    assert "did you mean 'raspberry-pi-5'" in done.stderr


def test_a_script_without_arguments_says_what_it_takes() -> None:
    done = export("browser")
    assert done.returncode == 2
    assert "MODEL OUT [options of edgelm export]" in done.stderr
