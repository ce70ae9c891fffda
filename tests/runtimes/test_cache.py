from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from edgelm.devices.machine import machine
from edgelm.runtimes import cache
from edgelm.runtimes.cache import cache_folder
from edgelm.runtimes.selftest import Verdict

VERDICT = Verdict(rows=8, difference=0.1, bound=0.5, mean=0.05, mean_bound=0.3)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGELM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_cache_is_where_the_platform_keeps_caches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == folder
    monkeypatch.delenv("EDGELM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/edgelm")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/edgelm")


def test_remembers() -> None:
    assert cache.recall("passed-a", Verdict) is None
    cache.remember("passed-a", VERDICT)
    assert cache.recall("passed-a", Verdict) == VERDICT


@pytest.mark.parametrize("content", [b"", b"{", b'{"other": 1.0}', b"[]", b"\xff"])
def test_what_is_damaged_is_as_if_it_were_not_there(content: bytes, folder: Path) -> None:
    folder.mkdir()
    (folder / "passed-a.json").write_bytes(content)
    assert cache.recall("passed-a", Verdict) is None


def test_a_key_is_of_its_parts_and_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine()
    assert cache.key("a", "b") == cache.key("a", "b") != cache.key("b", "a")
    before = cache.key("a")
    monkeypatch.setattr(cache, "machine", lambda: msgspec.structs.replace(here, cpu="another"))
    assert cache.key("a") != before


def test_clearing_takes_our_files_and_leaves_those_of_others(folder: Path) -> None:
    cache.remember("passed-a", VERDICT)
    (folder / ".passed-b.json.x7y").write_text("left by a killed process")
    (folder / "latency-c.json").write_text("{}")
    for name in ("notes.json", "passed.txt", "fastest"):
        (folder / name).write_text("someone else's")
    assert cache.clear() == 3
    assert sorted(path.name for path in folder.iterdir()) == ["fastest", "notes.json", "passed.txt"]
    assert cache.clear() == 0


def test_clearing_what_is_not_there_does_nothing() -> None:
    assert cache.clear() == 0


def test_a_folder_that_cannot_be_written_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGELM_CACHE", str(tmp_path / "file" / "below"))
    for _ in range(2):
        cache.remember("passed-a", VERDICT)
    (said,) = [record.message for record in caplog.records]
    assert "cannot be written" in said
    assert "EDGELM_CACHE" in said


def test_processes_that_fill_it_at_the_same_time_do_not_disturb_each_other(folder: Path) -> None:
    program = (
        "from edgelm.runtimes.cache import recall, remember\n"
        "from edgelm.runtimes.selftest import Verdict\n"
        "for turn in range(50):\n"
        "    remember('passed-a', Verdict(rows=turn + 1, difference=0.0, bound=1.0, mean=0.0, mean_bound=1.0))\n"
        "    found = recall('passed-a', Verdict)\n"
        "    assert found is not None and 1 <= found.rows <= 50\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", program], env=dict(os.environ)) for _ in range(2)]
    assert [process.wait() for process in started] == [0, 0]
    assert [path.name for path in folder.iterdir()] == ["passed-a.json"]
