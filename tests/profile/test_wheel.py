from __future__ import annotations

import base64
import csv
import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import edgelm
from edgelm.profile.remote.wheel import RUN_SIDE, wheel

ROOT = Path(str(edgelm.__file__)).parent


def test_it_holds_every_module_of_the_run_side() -> None:
    _, content = wheel()
    names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    packages = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("*/**/__init__.py")}
    build_side = {name for name in packages if name.split("/")[0] in ("compress", "exporters")}
    linked = {"devices", "runtimes"}  # folders beside edgelm in a checkout, which a glob does not follow
    expected = {"edgelm"} | {f"edgelm.{name.replace('/', '.')}" for name in (packages - build_side) | linked}
    assert set(RUN_SIDE) == expected
    assert {"edgelm/sample.txt", "edgelm/devices/raspberry-pi-5.toml", "edgelm/runtimes/ort.py"} <= set(names)
    assert not [name for name in names if name.endswith(".pyc")]


def test_its_record_is_true_and_the_same_files_give_the_same_bytes() -> None:
    name, content = wheel()
    assert wheel() == (name, content)
    archive = zipfile.ZipFile(io.BytesIO(content))
    (record,) = (one for one in archive.namelist() if one.endswith("/RECORD"))
    rows = list(csv.reader(archive.read(record).decode().splitlines()))
    assert [row[0] for row in rows] == archive.namelist()
    for path, digest, size in rows[:-1]:
        found = base64.urlsafe_b64decode(digest.removeprefix("sha256=") + "=")
        assert found == hashlib.sha256(archive.read(path)).digest()
        assert int(size) == archive.getinfo(path).file_size


def test_pip_installs_it_and_python_runs_it_from_there(tmp_path: Path) -> None:
    pytest.importorskip("pip", reason="needs pip, which is not installed")
    name, content = wheel()
    (tmp_path / name).write_bytes(content)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", "there", name]
    subprocess.run(pip, cwd=tmp_path, check=True)
    program = (
        "import sys; sys.path.insert(0, 'there'); import edgelm.profile.remote.job as job, edgelm.runtimes.ort as ort;"
        "from importlib.metadata import requires;"
        "print(job.__file__, ort.__file__, any(one.startswith('onnxruntime') for one in requires('edgelm')))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    first, second, needs = done.stdout.split()
    assert all("there/edgelm" in path for path in (first, second))
    assert needs == "True"
