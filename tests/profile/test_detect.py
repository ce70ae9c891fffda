from __future__ import annotations

from pathlib import Path

import pytest

from edgelm import devices
from edgelm.devices.machine import cores, machine
from edgelm.profile import detect
from edgelm.runs import Peak

PEAK = Peak(fp32_macs=123.456e9, int8_macs=987.6e9, bytes=20.55e9, threads=2)


def cache(root: Path, index: int, level: int, kind: str, size: str) -> None:
    folder = root / f"sys/devices/system/cpu/cpu0/cache/index{index}"
    folder.mkdir(parents=True)
    for name, text in (("level", str(level)), ("type", kind), ("size", size)):
        (folder / name).write_text(f"{text}\n")


def test_a_machine_is_described_by_what_it_says_and_what_was_measured(tmp_path: Path) -> None:
    cache(tmp_path, 0, 1, "Data", "48K")
    cache(tmp_path, 1, 1, "Instruction", "32K")
    cache(tmp_path, 2, 2, "Unified", "2048K")
    cache(tmp_path, 3, 3, "Unified", "32M")
    found = detect.described("mine", found=PEAK, root=tmp_path)
    assert (found.name, found.arch, found.isa, found.threads) == ("mine", machine().arch, machine().isa, cores())
    assert {figure.name: (figure.value, figure.unit) for figure in found.figures} == {
        "usable cores": (cores(), "cores"),
        "L1 cache, data": (48, "KB"),
        "L2 cache, unified": (2, "MB"),
        "L3 cache, unified": (32, "MB"),
        "fp32 matrix product": (123, "GMAC/s"),
        "int8 matrix product": (988, "GMAC/s"),
        "memory bandwidth": (20.6, "GB/s"),
    }
    assert all(len(figure.source.split()) >= 3 for figure in found.figures)


def test_what_only_the_packaged_profile_knows_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "detect", lambda machine: "x86_64-avx512-vnni")
    like, found = devices.load("x86_64-avx512-vnni"), detect.described("mine", found=PEAK, root=tmp_path)
    assert (found.int8, found.width_multiple, found.formats) == ("u8s8", 32, like.formats)


def test_what_is_written_is_read_back_as_a_profile(tmp_path: Path) -> None:
    device = detect.described("mine", found=PEAK, root=tmp_path)
    path = tmp_path / "mine.toml"
    path.write_text(detect.toml(device), encoding="utf-8")
    assert devices.load(str(path)) == device


@pytest.mark.parametrize("name", devices.names())
def test_every_packaged_profile_can_be_written(name: str, tmp_path: Path) -> None:
    path = tmp_path / "again.toml"
    path.write_text(detect.toml(devices.load(name)), encoding="utf-8")
    assert devices.load(str(path)) == devices.load(name)
