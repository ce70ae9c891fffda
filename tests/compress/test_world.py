from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from edgelm.compress.world import World, world


def test_a_process_that_nobody_launched_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    world.cache_clear()
    alone = world()
    assert alone == World()
    assert alone.first
    model = tiny.encoder()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    alone.same_(model)
    alone.mean_(model)
    assert alone.mean(0.5) == 0.5
    assert all((before[name] == tensor).all() for name, tensor in model.state_dict().items())


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.mark.slow
def test_two_processes_that_accelerate_launches_make_one_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    texts = [{"text": text, "label": tiny.LABELS[i % 3]} for i, text in enumerate(tiny.TEXTS[:-1] * 8)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, texts)))
    sets = ["prune.ffn=32", "distill.epochs=4", "distill.batch=4", "distill.lr=1e-3"]
    given = ["-m", "edgelm", "compress", str(tiny_checkpoint), "--data", str(tmp_path / "train.jsonl")]
    given += [part for one in sets for part in ("--set", one)]
    two = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu"]
    processes = [
        subprocess.Popen(
            [*launch, *given, "--out", str(tmp_path / "two"), "--json", str(tmp_path / "two.json")],
            cwd=tmp_path,
            env=os.environ | two | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    alone = ["--out", str(tmp_path / "one"), "--json", str(tmp_path / "one.json")]
    subprocess.run([sys.executable, *given, *alone], cwd=tmp_path, capture_output=True, check=True)
    both, single = (
        json.loads((tmp_path / name).read_text())["compression"]["distill"] for name in ("two.json", "one.json")
    )
    assert both["steps"] == pytest.approx(single["steps"] / 2, abs=4)
    assert both["loss_end"] < both["loss_start"]
    assert (tmp_path / "two" / "model.safetensors").is_file()
    assert not [path for path in tmp_path.iterdir() if ".partial" in path.name or path.name.startswith(".")]
