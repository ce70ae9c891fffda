from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from edgelm import compression, recipe
from edgelm.compress.state import State, job, remove
from edgelm.errors import DataError
from edgelm.recipe import Distill

CONTENT = {"weights": torch.arange(5.0), "losses": [1.5, 2.5], "best": None}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    State(tmp_path / "x", "job").write(CONTENT)
    found = State(tmp_path / "x", "job").read()
    assert found is not None
    assert torch.equal(found.pop("weights"), torch.arange(5.0))
    assert found == {"losses": [1.5, 2.5], "best": None}


def test_nothing_written_is_nothing_read(tmp_path: Path) -> None:
    assert State(tmp_path / "x", "job").read() is None


def test_another_job_does_not_go_on_from_it_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    State(tmp_path / "x", "job").write(CONTENT)
    assert State(tmp_path / "x", "other job").read() is None
    assert "another job" in caplog.text


@pytest.mark.parametrize("cut", [0, 10, -100])
def test_a_damaged_file_is_refused(cut: int, tmp_path: Path) -> None:
    State(tmp_path / "x", "job").write(CONTENT)
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:cut])
    with pytest.raises(DataError, match="remove it"):
        State(tmp_path / "x", "job").read()


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    state = State(tmp_path / "x", "job")
    state.write(CONTENT)
    before = (tmp_path / "x").read_bytes()
    (tmp_path / "x.new").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"disk full|No space left"):
        state.write({"weights": torch.zeros(10**6)})
    assert (tmp_path / "x").read_bytes() == before
    remove(tmp_path / "x")
    assert not list(tmp_path.iterdir())
    remove(tmp_path / "x")


def test_it_is_due_when_the_interval_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    state = State(tmp_path / "x", "job")
    due = []
    for now in (1119.0, 1120.0):  # noqa: B007 - the clock reads it
        due.append(state.due())
    state.write(CONTENT)
    assert [*due, state.due()] == [False, True, False]


ROW = np.arange(6, dtype=np.int32)
DIFFERENT = [
    (),
    (None,),
    (0,),
    ("0",),
    (b"0",),
    ("ab",),
    ("a", "b"),
    (["a"], "b"),
    (["a", "b"],),
    (ROW,),
    (ROW[::2],),
    (ROW.astype(np.int64),),
    (ROW.reshape(2, 3),),
    ([ROW[:2], ROW[2:]],),
    ([ROW[:3], ROW[3:]],),
    (torch.zeros(2),),
    (torch.tensor([0.0, 1e-30]),),
    ({"a": torch.zeros(2)},),
    ({"b": torch.zeros(2)},),
    (Distill(),),
    (Distill(seed=1),),
]


def test_other_parts_are_another_job() -> None:
    assert len({job(*parts) for parts in DIFFERENT}) == len(DIFFERENT)
    assert job([ROW[:3], ROW[3:]], Distill()) == job([ROW[:3].copy(), ROW[3:].copy()], Distill(seed=0))


def test_a_part_that_cannot_be_told_apart_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        job(object())


def test_the_job_is_the_recipes_compression_the_data_and_the_checkpoint(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edgelm.compress.state.INTERVAL", 0.0)
    texts = [json.dumps({"text": f"{text} it", "label": "music"}) for text in tiny.TEXTS]
    (tmp_path / "train.jsonl").write_text("\n".join(texts))
    (tmp_path / "other.jsonl").write_text("\n".join(texts[1:]))
    other = tiny.distilbert(tmp_path / "other")
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))  # one weight differs

    def compress(model: Path = tiny_checkpoint, *changes: str, train: str = "train.jsonl") -> str:
        """What is logged when the first job was killed and this one is run."""
        remove(tmp_path / "out.partial")
        base = ["distill.epochs=1", "distill.batch=2", "prune.macs=1.2"]
        for given, name, source in ((base, "train.jsonl", tiny_checkpoint), ([*base, *changes], train, model)):
            caplog.clear()
            located = recipe.of(given, data={"train": str(tmp_path / name)}).with_model(str(source))
            done = compression.compress(located, out=tmp_path / "out")
        assert (tmp_path / "out.partial").exists()  # it goes when the output is written
        compression.save(done, tmp_path / "out")
        assert not (tmp_path / "out.partial").exists()
        return caplog.text

    assert "going on" in compress()
    assert "going on" in compress(tiny_checkpoint, "gates.fp32={max_abs_diff=9, agreement=0, kl=9, accuracy_loss=9}")
    for found in (
        compress(tiny_checkpoint, "distill.seed=1"),
        compress(tiny_checkpoint, "prune.samples=5"),
        compress(tiny_checkpoint, train="other.jsonl"),
        compress(other),
    ):
        assert "another job" in found


COMPRESS = """
import sys
import torch
from edgelm.cli import main
from edgelm.compress import state
torch.set_num_threads(1)
state.INTERVAL = float(sys.argv.pop(1))
main()
"""


@pytest.mark.slow
def test_a_killed_compression_that_is_run_again_writes_the_same_bytes(tmp_path: Path) -> None:
    tiny.distilbert(tmp_path / "checkpoint")
    rows = [{"text": f"{text} {n}", "label": tiny.LABELS[n % 3]} for n in range(8) for text in tiny.TEXTS]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def command(interval: float, out: str) -> list[str]:
        given = ["compress", "checkpoint", "--data", "train.jsonl", "--macs", "1.3", "--out", out]
        return [sys.executable, "-c", COMPRESS, str(interval), *given, "--set", "distill.epochs=20"]

    folder = {"cwd": tmp_path, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    subprocess.run(command(1e9, "whole"), check=True, **folder)  # type: ignore[call-overload]
    for wait in (0.0, 0.2):
        process = subprocess.Popen(command(0.0, "killed"), **folder)  # type: ignore[call-overload]
        deadline, before = time.monotonic() + 120, _stamp(tmp_path / "killed.partial")
        while _stamp(tmp_path / "killed.partial") == before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    again = subprocess.run(command(1e9, "killed"), capture_output=True, check=True, **folder)  # type: ignore[call-overload]
    assert b"going on from step" in again.stderr
    files = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {path.name for path in (tmp_path / "killed").iterdir()} == files
    assert all((tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in files)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "train.jsonl", "whole", "killed"}


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0
