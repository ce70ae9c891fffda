from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sample

from edgelm import runtimes
from edgelm.errors import BundleDamaged, BundleError, DeviceUnavailable, SelfTestFailed
from edgelm.manifest import Variant
from edgelm.runtimes import Ids, Logits, Session, choose, race
from edgelm.runtimes.choose import Choice, able
from edgelm.runtimes.place import Place

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
    monkeypatch.setattr(choose, "_SECONDS", 0.05)
    return tmp_path / "cache"


def starter(opened: list[Slow], fast: str = "litert int8-dynamic") -> Callable[[Variant], Session]:
    """Sessions of which one is the fastest by far; int8 is faster than fp32."""

    def start(variant: Variant) -> Session:
        slow = 4.0 if variant.precision == "fp32" else 1.0
        opened.append(Slow(0.3 if f"{variant.engine} {variant.precision}" == fast else slow, []))
        return opened[-1]

    return start


def fastest(start: Callable[[Variant], Session], threads: int = 1, **options: Any) -> Choice:
    settings: dict[str, Any] = {"bundle": "a.edgelm", "vocab": 100} | options
    return choose.fastest(VARIANTS, start, threads=threads, **settings)


def test_measures_once_and_remembers(cache: Path) -> None:
    opened: list[Slow] = []
    first = fastest(starter(opened))
    assert (first.variant.engine, first.variant.precision, first.cached) == ("litert", "int8-dynamic", False)
    assert len(opened) == 4
    assert all(set(session.seen) == {16, 32} for session in opened)
    assert min(first.fastest_ms, key=lambda name: first.fastest_ms[name]) == "litert int8-dynamic"
    assert all(ms >= 2.0 for name, ms in first.fastest_ms.items() if name != "litert int8-dynamic")
    assert [session for session in opened if not session.closed] == [first.session]

    again = fastest(starter(opened))
    assert (again.variant, again.fastest_ms, again.cached) == (first.variant, first.fastest_ms, True)
    assert [again.session] == opened[4:]
    assert [path.name.startswith("fastest-") for path in cache.iterdir()] == [True]


def test_what_is_hopeless_is_closed_before_the_next_is_opened() -> None:
    opened: list[Slow] = []
    start = starter(opened)

    def checked(variant: Variant) -> Session:
        if variant.precision == "fp32":
            assert not any(session.closed for session in opened if session.milliseconds < 4.0)
            assert all(session.closed for session in opened if session.milliseconds == 4.0)
        return start(variant)

    assert fastest(checked).variant.precision == "int8-dynamic"


def test_measures_again_for_other_threads_and_devices() -> None:
    fastest(starter([]))
    assert not fastest(starter([]), threads=2).cached
    assert not fastest(starter([]), place=Place("xnnpack")).cached


@pytest.mark.parametrize(("device", "counts"), [("cpu", True), ("xnnpack", True), ("openvino", False)])
def test_processor_time_counts_where_the_processor_computes(
    device: str, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[bool] = []

    def raced(requests: dict[str, Any], *, usage: Any, **rest: Any) -> dict[str, float]:
        given.append(usage is not None)
        return race.race(requests, usage=usage, **rest)

    monkeypatch.setattr(choose, "race", raced)
    assert fastest(starter([]), place=Place(device)).variant.engine == "litert"
    assert given == [counts]


@pytest.mark.parametrize("content", [b"", b"{", b'{"other": 1.0}', b"[]", b"\xff"])
def test_a_damaged_memory_is_measured_again(content: bytes, cache: Path) -> None:
    fastest(starter([]))
    (path,) = cache.iterdir()
    path.write_bytes(content)
    assert not fastest(starter([])).cached
    found = msgspec.json.decode(path.read_bytes(), type=choose.Fastest)
    assert found.fastest_ms.keys() == {f"{v.engine} {v.precision}" for v in VARIANTS}
    assert (found.bundle, found.device, found.threads) == ("a.edgelm", "cpu", 1)


def test_the_memory_of_other_variants_does_not_count(cache: Path) -> None:
    fastest(starter([]))
    (path,) = cache.iterdir()
    known = msgspec.json.decode(path.read_bytes(), type=choose.Fastest)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(known, fastest_ms={"other fp32": 1.0})))
    assert not fastest(starter([])).cached


@pytest.mark.parametrize("error", [SelfTestFailed, DeviceUnavailable, BundleError])
def test_a_variant_that_does_not_pass_is_left_out_and_logged(
    error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    start = starter([])

    def failing(variant: Variant) -> Session:
        if variant.engine == "litert":
            raise error(f"{variant.engine} {variant.precision} is wrong by 7.5")
        return start(variant)

    for earlier in (False, True):
        found = fastest(failing)
        assert (found.variant.engine, found.cached) == ("onnxruntime", earlier)
        assert set(found.left_out) == {"litert fp32", "litert int8-dynamic"}
    assert {record.message for record in caplog.records} == {
        f"left out: litert {precision} is wrong by 7.5" for precision in ("fp32", "int8-dynamic")
    }


def test_when_none_passes_the_error_is_raised() -> None:
    def failing(variant: Variant) -> Session:
        raise SelfTestFailed(f"{variant.engine} {variant.precision}")

    with pytest.raises(SelfTestFailed, match="litert int8-dynamic"):  # the smallest
        fastest(failing)


def test_a_damaged_bundle_is_not_passed_over() -> None:
    def altered(variant: Variant) -> Session:
        raise BundleDamaged("altered")

    with pytest.raises(BundleDamaged, match="altered"):
        fastest(altered)


def test_a_cache_that_cannot_be_written_does_not_keep_it_from_working(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGELM_CACHE", str(tmp_path / "file" / "below"))
    for _ in range(2):
        found = fastest(starter([]))
        assert (found.variant.engine, found.cached) == ("litert", False)


def test_able_narrows_by_engine_and_precision() -> None:
    manifest = sample.manifest()
    assert able(manifest) == list(VARIANTS)
    assert [v.precision for v in able(manifest, engine="litert")] == ["fp32", "int8-dynamic"]
    assert [v.engine for v in able(manifest, precision="fp32")] == ["onnxruntime", "litert"]
    with pytest.raises(DeviceUnavailable, match="no variant litert int4; it has onnxruntime fp32, "):
        able(manifest, "litert", "int4")


def test_an_engine_that_is_not_installed_is_left_out_and_asked_for_told(monkeypatch: pytest.MonkeyPatch) -> None:
    litert = runtimes.engine("litert")
    monkeypatch.setattr(litert, "missing", lambda device: "LiteRT is not installed: pip install 'edgelm[litert]'")
    assert {v.engine for v in able(sample.manifest())} == {"onnxruntime"}
    with pytest.raises(DeviceUnavailable, match="pip install"):
        able(sample.manifest(), engine="litert")


def test_variants_of_engines_that_are_not_known_here_are_left_out() -> None:
    manifest = sample.manifest()
    foreign = msgspec.structs.replace(VARIANTS[0], engine="abacus")
    assert able(msgspec.structs.replace(manifest, variants=(foreign, VARIANTS[1]))) == [VARIANTS[1]]
    with pytest.raises(
        DeviceUnavailable, match=r"nothing in the bundle runs on device 'cpu'.*no engine named 'abacus'"
    ):
        able(msgspec.structs.replace(manifest, variants=(foreign,)))


def test_a_device_narrows_to_the_engines_that_have_it() -> None:
    assert {v.engine for v in able(sample.manifest(), device="xnnpack")} == {"litert"}
    with pytest.raises(DeviceUnavailable, match=r"onnxruntime-gpu.*; litert runs on cpu, xnnpack"):
        able(sample.manifest(), device="cuda")


def test_a_gpu_takes_half_precision_where_there_is_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes.engine("onnxruntime"), "missing", lambda device: None)
    half = msgspec.structs.replace(VARIANTS[0], precision="fp16")
    manifest = msgspec.structs.replace(sample.manifest(), variants=(*VARIANTS, half))
    assert able(manifest, device="cuda") == [half]
    assert [v.precision for v in able(manifest, precision="fp32", device="cuda")] == ["fp32"]
    assert len(able(manifest, device="openvino")) == 3
