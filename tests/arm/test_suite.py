"""The plugin and the summary of tests on emulated cores, without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from arm.count import ROOT
from arm.suite import summary

HIDE = 'import sys; sys.modules["torch"] = None  # as if it were not installed\n'
FILES = {
    "test_module.py": f"{HIDE}from torch import nn\ndef test_never(): ...",
    "test_many.py": f"""{HIDE}
import pytest

@pytest.fixture
def tensor(): import torch

@pytest.mark.parametrize("value", [1e-6, 3e-6])
def test_passes(value, record_property): record_property("litert fp32", value)

def test_fails(): assert False

def test_fails_without_a_package_of_the_run_side(): import msgspecial

def test_skips(): pytest.skip("no lab")

@pytest.mark.native("it takes a clock")
def test_is_not_for_emulators(): assert False

def test_imports(): import torch.nn

def test_has_a_fixture_that_imports(tensor): ...

def test_raises_from_it():
    try:
        import torch
    except ModuleNotFoundError as exc:
        raise ValueError("an extra is missing") from exc
""",
}


def test_what_needs_the_build_side_is_skipped_and_the_rest_counted(tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "arm.guest", "-p", "no:anyio", "-p", "no:cacheprovider"]
    path = os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [*command, "--rootdir", tmp_path, "-o", "junit_family=xunit1", "--junitxml", tmp_path / "junit.xml", tmp_path],
        env={
            **os.environ,
            "PYTHONPATH": path,
        },
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert summary((tmp_path / "junit.xml").read_text(encoding="utf-8")) == {
        "passed": 2,
        "failed": 2,
        "skipped": {"needs torch, which a device does not have": 4, "no lab": 1, "emulated: it takes a clock": 1},
        "max_abs_diff": {"litert fp32": 3e-6},
    }
