from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sample

from edgelm import runtimes
from edgelm.errors import DeviceUnavailable
from edgelm.manifest import Variant
from edgelm.runtimes import Ids, Logits, Session
from edgelm.runtimes.choose import able, cache_folder, fastest

VARIANTS = sample.manifest().variants


class Slow:
    """Takes a known time."""

    def __init__(self, milliseconds: float, seen: list[int]) -> None:
        self.milliseconds, self.seen, self.closed = milliseconds, seen, False

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        self.seen.append(input_ids.shape[1])
        time.sleep(self.milliseconds / 1e3)
        return np.zeros((1, 2), np.float32)

    def explain(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGELM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def opener(opened: list[Slow]) -> Callable[[Variant], Session]:
    """Sessions of which LiteRT's int8 is the fastest by far."""

    def load(variant: Variant) -> Session:
        fast = (variant.engine, variant.precision) == ("litert", "int8-dynamic")
        opened.append(Slow(0.0 if fast else 4.0, []))
        return opened[-1]

    return load


def test_measures_once_and_remembers(cache: Path) -> None:
    opened: list[Slow] = []
    first = fastest(VARIANTS, opener(opened), threads=1, vocab=100)
    assert (first.variant.engine, first.variant.precision, first.cached) == ("litert", "int8-dynamic", False)
    assert len(opened) == 4
    assert all(session.closed and set(session.seen) == {16, 32} for session in opened)
    assert min(first.medians_ms, key=lambda name: first.medians_ms[name]) == "litert int8-dynamic"
    assert all(ms >= 8.0 for name, ms in first.medians_ms.items() if name != "litert int8-dynamic")

    def never(variant: Variant) -> Session:
        raise AssertionError("measured again")

    again = fastest(VARIANTS, never, threads=1, vocab=100)
    assert (again.variant, again.medians_ms, again.cached) == (first.variant, first.medians_ms, True)
    assert [path.name.startswith("fastest-") for path in cache.iterdir()] == [True]


def test_measures_again_for_other_threads() -> None:
    fastest(VARIANTS, opener([]), threads=1, vocab=100)
    assert not fastest(VARIANTS, opener([]), threads=2, vocab=100).cached


@pytest.mark.parametrize("content", [b"", b"{", b'{"other": 1.0}', b"[]", b"\xff"])
def test_a_damaged_memory_is_measured_again(content: bytes, cache: Path) -> None:
    fastest(VARIANTS, opener([]), threads=1, vocab=100)
    (path,) = cache.iterdir()
    path.write_bytes(content)
    assert not fastest(VARIANTS, opener([]), threads=1, vocab=100).cached
    assert json.loads(path.read_text()).keys() == {f"{v.engine} {v.precision}" for v in VARIANTS}


def test_a_cache_that_cannot_be_written_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGELM_CACHE", str(tmp_path / "file" / "below"))
    for _ in range(2):
        assert fastest(VARIANTS, opener([]), threads=1, vocab=100).variant.engine == "litert"
    assert len([record for record in caplog.records if "cannot be written" in record.message]) == 1


def test_the_cache_is_where_the_platform_keeps_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("EDGELM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/edgelm")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/edgelm")


def test_able_narrows_by_engine_and_precision() -> None:
    manifest = sample.manifest()
    assert able(manifest) == list(VARIANTS)
    assert [v.precision for v in able(manifest, engine="litert")] == ["fp32", "int8-dynamic"]
    assert [v.engine for v in able(manifest, precision="fp32")] == ["onnxruntime", "litert"]
    with pytest.raises(DeviceUnavailable, match="no variant litert int4; it has onnxruntime fp32, "):
        able(manifest, "litert", "int4")


def test_an_engine_that_is_not_installed_is_left_out_and_asked_for_told(monkeypatch: pytest.MonkeyPatch) -> None:
    litert = runtimes.engine("litert")
    monkeypatch.setattr(litert, "missing", lambda: "LiteRT is not installed: pip install 'edgelm[litert]'")
    assert {v.engine for v in able(sample.manifest())} == {"onnxruntime"}
    with pytest.raises(DeviceUnavailable, match="pip install"):
        able(sample.manifest(), engine="litert")
