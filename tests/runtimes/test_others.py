"""An engine that someone else wrote and installed: the one of the documentation, word for word."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgelm

DOCUMENT = Path(__file__).parents[2] / "docs" / "embed.md"
ASK = """
import json, sys, edgelm
from edgelm import doctor
with edgelm.load(sys.argv[1], engine="reference", precision="fp32") as model:
    answers, facts = model.logits(["play music", "what time is it"]).tolist(), model.explain()
with edgelm.load(sys.argv[1], threads=1) as model:
    chosen = model.explain()
engines = [one for one in doctor.examine()["engines"] if one["engine"] == "reference"]
print(json.dumps([answers, facts, sorted(chosen["fastest_ms"]), engines]))
"""


@pytest.fixture(scope="module")
def found(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("pip", reason="needs pip, which is not installed")
    folder, site = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("site")
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, content in re.findall(r"`([\w.]+)`:\n\n```\w+\n(.*?)```", text, re.DOTALL):
        (folder / name).write_text(content, encoding="utf-8")
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "install", *offline, "--target", site, folder], check=True)
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-W", "ignore", "-c", ASK, str(tiny_bundle)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_runs_when_it_is_asked_for_and_is_tested_like_any_other(found: Any, tiny_bundle: Path) -> None:
    answers, facts, _, _ = found
    with edgelm.load(tiny_bundle, engine="onnxruntime", precision="fp32") as model:
        expected = model.logits(["play music", "what time is it"])
    np.testing.assert_allclose(np.array(answers), expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert (facts["engine"], facts["provider"], facts["artifact"]) == ("reference", "numpy", "model.fp32.onnx")
    assert facts["self_test"]["passed"]


def test_auto_does_not_take_it(found: Any) -> None:
    assert {name.split()[0] for name in found[2]} == {"litert", "onnxruntime"}


def test_doctor_lists_it(found: Any) -> None:
    (listed,) = found[3]
    assert (listed["available"], listed["format"]) == (True, "onnx")


def test_it_is_as_short_as_the_documentation_says() -> None:
    code = re.findall(r"`edgelm_reference.py`:\n\n```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)[0]
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 40
