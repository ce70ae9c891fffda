"""What an app pays for: `import edgelm` is free, and loading a bundle brings in one engine and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BUILD_SIDE = {"torch", "transformers", "onnx", "onnxscript", "onnxsim", "tensorflow", "tf2onnx", "safetensors"}
BUILD_SIDE |= {"litert_torch", "ai_edge_quantizer", "jax", "scipy", "matplotlib", "jinja2", "typer", "rich"}
BUILD_SIDE |= {"asyncssh", "cryptography"}  # of --host alone
ENGINES = {"onnxruntime", "ai_edge_litert"}


def loaded_by(program: str, *arguments: str) -> set[str]:
    """Top-level modules that a fresh process has after running this."""
    program += "\nimport json, sys\nprint(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_edgelm_brings_in_nothing() -> None:
    found = loaded_by("import edgelm")
    assert "edgelm" in found
    assert not found & (BUILD_SIDE | ENGINES | {"numpy", "tokenizers", "psutil", "msgspec"})


@pytest.mark.parametrize(("engine", "module"), [("onnxruntime", "onnxruntime"), ("litert", "ai_edge_litert")])
def test_a_loaded_model_brings_in_its_engine_alone(engine: str, module: str, tiny_bundle: Path) -> None:
    program = (
        "import sys, edgelm\n"
        "model = edgelm.load(sys.argv[1], engine=sys.argv[2], precision='int8-dynamic')\n"
        "assert model('play music')[0]['label']"
    )
    found = loaded_by(program, str(tiny_bundle), engine)
    assert not found & BUILD_SIDE
    assert found & ENGINES == {module}


def test_the_command_line_starts_without_the_build_side() -> None:
    found = loaded_by("import edgelm.cli")
    assert not found & ((BUILD_SIDE | ENGINES) - {"typer", "rich"})
