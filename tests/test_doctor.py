from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import edgelm
from edgelm import doctor, runtimes
from edgelm.cli import app
from edgelm.devices.machine import detect


class Works:
    FORMAT = "onnx"

    @staticmethod
    def missing() -> str | None:
        return None


class Lacks:
    FORMAT = "tflite"

    @staticmethod
    def missing() -> str | None:
        return "pip install 'edgelm[litert]'"


def examined(monkeypatch: pytest.MonkeyPatch, engines: dict[str, Any]) -> dict[str, Any]:
    def engine(name: str) -> Any:
        if isinstance(engines[name], Exception):
            raise engines[name]
        return engines[name]

    monkeypatch.setattr(runtimes, "engine", engine)
    return doctor.examine()


def test_it_is_plain_data_about_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    found = examined(monkeypatch, {"onnxruntime": Works, "litert": Works})
    assert json.loads(json.dumps(found)).keys() == found.keys()
    assert found["device"] == detect()
    assert found["memory_free_bytes"] > 0
    assert found["disk_free_bytes"] > 0
    assert found["ok"]


def test_an_engine_that_is_missing_comes_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    found = examined(monkeypatch, {"onnxruntime": Works, "litert": Lacks})
    by_name = {one["engine"]: one for one in found["engines"]}
    assert set(by_name) == {"litert", "onnxruntime"}
    assert by_name["onnxruntime"]["available"]
    assert by_name["onnxruntime"]["version"]
    assert not by_name["litert"]["available"]
    assert by_name["litert"]["cure"] == "pip install 'edgelm[litert]'"
    assert found["ok"]


def test_an_engine_that_cannot_be_imported_does_not_end_the_examination(monkeypatch: pytest.MonkeyPatch) -> None:
    found = examined(monkeypatch, {"onnxruntime": ImportError("libfoo.so is broken"), "litert": Lacks})
    assert not found["ok"]
    assert any("libfoo.so is broken" in (one["cure"] or "") for one in found["engines"])


def test_extras_are_those_that_the_package_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = [
        "numpy>=2",
        'ai-edge-litert>=2.1; extra == "litert"',
        'no-such-package>=1; extra == "export"',
        'edgelm[litert]; extra == "export"',
        'edgelm[export,report]; extra == "all"',
        "rich (>=13) ; extra == 'report'",
    ]
    monkeypatch.setattr(doctor, "requires", lambda package: declared)
    assert doctor._extras() == {
        "litert": {"ai-edge-litert"},
        "export": {"no-such-package", "ai-edge-litert"},
        "all": {"no-such-package", "ai-edge-litert", "rich"},
        "report": {"rich"},
    }
    found = {one["extra"]: one for one in examined(monkeypatch, {"onnxruntime": Works, "litert": Works})["extras"]}
    assert found["export"] == {
        "extra": "export",
        "installed": False,
        "lacks": ["no-such-package"],
        "install": "pip install 'edgelm[export]'",
    }
    assert found["report"]["installed"]


def test_the_real_extras_have_packages() -> None:
    extras = doctor._extras()
    assert {"litert", "export", "report", "all"} <= set(extras)
    assert all(extras.values())
    assert extras["litert"] < extras["export"] < extras["all"]


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EDGELM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "deep" / "cache"))
    found = doctor._cache()
    assert (found["folder"], found["writable"]) == (str(tmp_path / "deep" / "cache" / "edgelm"), True)
    (tmp_path / "deep").write_text("a file where the folder should be")
    assert doctor._cache()["writable"] is False


def test_what_was_measured_is_shown_and_can_be_forgotten(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGELM_CACHE", str(tmp_path))
    assert doctor._cache() | {"folder": "", "writable": True} == {
        "folder": "",
        "writable": True,
        "files": 0,
        "bytes": 0,
        "fastest": [],
    }
    with edgelm.load(tiny_bundle, threads=1) as model:
        facts = model.explain()
    found = doctor._cache()
    assert found["files"] == 5  # the choice, and a verdict on each of four
    assert found["bytes"] == sum(path.stat().st_size for path in tmp_path.iterdir())
    (fastest,) = found["fastest"]
    assert fastest["bundle"] == "tiny.edgelm"
    assert fastest["variant"] == f"{facts['engine']} {facts['precision']}"
    assert fastest["fastest_ms"] == facts["fastest_ms"]
    done = CliRunner().invoke(app, ["doctor", "--clear-cache", "--json", "-"])
    assert json.loads(done.stdout)["cache"]["files"] == 0
    assert "forgot 5 files" in done.stderr
    assert not list(tmp_path.iterdir())
