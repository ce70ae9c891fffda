from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
import sample

from edgelm import bundle
from edgelm.errors import DeviceUnavailable
from edgelm.profile import memory

MB = 1_000_000
PLANTED = 100 * MB

FAT_ENGINE = f"""
import numpy
FORMAT = "onnx"

def missing():
    return None

def load(artifact, *, threads, place):
    assert threads == 3, f"expected 3 threads, found {{threads}}"
    return Session(artifact)

class Session:
    def __init__(self, artifact):
        self.weights = numpy.ones({PLANTED}, numpy.uint8) if artifact == b"heavy" else None

    def run(self, input_ids, attention_mask):
        return numpy.zeros((len(input_ids), 2), numpy.float32)
"""

PLANT = f"""
from edgelm.profile.memory import own_peak
import sys
before = own_peak()
if len(sys.argv) > 1:
    data = bytearray({PLANTED})
    data[::4096] = b"x" * len(data[::4096])
    del data
print(own_peak() - before, own_peak())
"""


@pytest.fixture
def fat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle of two variants, one of them heavy, for an engine that another package brings."""
    site = tmp_path / "site"
    info = site / "fat-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "fat_engine.py").write_text(FAT_ENGINE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fat\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edgelm.runtimes]\nfat = fat_engine\n")
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    files = {"light.onnx": b"light", "heavy.onnx": b"heavy"}
    variants = tuple(
        msgspec.structs.replace(
            sample.variant("fat", "onnx", "fp32", len(content)), file=name, sha256=sha256(content).hexdigest()
        )
        for name, content in files.items()
    )
    path = tmp_path / "fat.edgelm"
    bundle.write(path, msgspec.structs.replace(sample.manifest(), variants=variants), files | {"tokenizer.json": b"{}"})
    return path


def child(*arguments: str) -> tuple[int, int]:
    done = subprocess.run([sys.executable, "-c", PLANT, *arguments], capture_output=True, text=True, check=True)
    grown, peak = done.stdout.split()
    return int(grown), int(peak)


def test_the_peak_has_an_allocation_that_is_already_gone() -> None:
    grown, _ = child("plant")
    assert 0.99 * PLANTED <= grown <= 1.1 * PLANTED


def test_without_the_allocation_the_peak_stays() -> None:
    grown, _ = child()
    assert grown < 0.05 * PLANTED


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not pass their peak on to children")
def test_the_memory_of_the_parent_is_not_counted() -> None:
    heavy = bytearray(3 * PLANTED)
    heavy[::4096] = b"x" * len(heavy[::4096])
    assert memory.own_peak() > 3 * PLANTED
    _, peak = child()
    assert peak < PLANTED
    del heavy


def test_a_kernel_that_leaves_the_line_out_is_asked_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: "Name:\tpython\n")
    monkeypatch.setattr(memory, "_peak_elsewhere", lambda: 123)
    assert memory.own_peak() == 123


def test_a_system_without_proc_is_asked_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: Path) -> str:
        raise FileNotFoundError

    real = memory.own_peak()
    monkeypatch.setattr(Path, "read_text", missing)
    assert memory.own_peak() >= real * 0.5


def test_a_variant_is_loaded_and_run_in_a_process_of_its_own(fat: Path) -> None:
    light = memory.fresh(fat, "light.onnx", tokens=16, threads=3).peak_bytes
    heavy = memory.fresh(fat, "heavy.onnx", tokens=16, threads=3).peak_bytes
    assert 0.95 * PLANTED <= heavy - light <= 1.1 * PLANTED


def test_length_threads_and_batch_arrive(fat: Path) -> None:
    small = memory.fresh(fat, "light.onnx", tokens=1, threads=3).peak_bytes
    large = memory.fresh(fat, "light.onnx", tokens=PLANTED // 8, threads=3, batch=2).peak_bytes
    assert large - small > PLANTED  # two arrays of 4-byte ids, two rows each


def test_a_process_that_fails_is_quoted(fat: Path) -> None:
    with pytest.raises(DeviceUnavailable, match=r"light\.onnx could not be loaded.*expected 3 threads, found 4"):
        memory.fresh(fat, "light.onnx", tokens=16, threads=4)
