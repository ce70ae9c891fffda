from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest

from edgelm.devices import cpu, machine
from edgelm.errors import DeviceUnavailable
from edgelm.manifest import Machine

ARM = Machine(arch="arm64", system="Linux 6.6", cpu="", isa=("asimd",), cores=4, memory_bytes=1, versions={})
PI_5 = msgspec.structs.replace(ARM, isa=("asimd", "asimddp", "asimdhp", "fphp"))


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def siblings(pairs: dict[int, str]) -> dict[str, str]:
    return {f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": text for n, text in pairs.items()}


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_affinity(*cpus: int) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(cpus), raising=False)

    return set_affinity


@pytest.mark.parametrize(
    ("cpus", "expected"),
    [((0, 1, 2, 3), 2), ((0, 2), 1), ((0, 1), 2), ((0,), 1)],
)
def test_hyper_threads_of_one_core_count_once(
    cpus: tuple[int, ...], expected: int, tmp_path: Path, allow: Callable[..., None]
) -> None:
    allow(*cpus)
    root = lay(tmp_path, siblings({0: "0,2\n", 1: "1,3\n", 2: "0,2\n", 3: "1,3\n"}))
    assert cpu.cores(root) == expected


def test_without_a_topology_each_processor_is_a_core(tmp_path: Path, allow: Callable[..., None]) -> None:
    allow(0, 1, 5)
    assert cpu.cores(tmp_path) == 3


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "150000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/slice/job\n", "sys/fs/cgroup/slice/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/not/mounted\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        (
            {
                "proc/self/cgroup": "5:memory:/job\n4:cpu,cpuacct:/job\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/job\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        ({"proc/self/cgroup": "1:memory:/job\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n"}, 8),
    ],
)
def test_a_quota_limits_the_cores(
    files: dict[str, str], expected: int, tmp_path: Path, allow: Callable[..., None]
) -> None:
    allow(*range(8))
    assert cpu.cores(lay(tmp_path, files)) == expected


def test_a_system_without_affinity_is_asked_through_psutil(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 6 if not logical else 12)
    assert cpu.cores(tmp_path) == 6


def test_a_system_that_knows_nothing_has_one_core(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: None)
    assert cpu.cores(tmp_path) == 1


@pytest.mark.parametrize(
    ("word", "expected"),
    [("AMD64", "x86_64"), ("x86_64", "x86_64"), ("aarch64", "arm64"), ("arm64", "arm64"), ("armv7l", "armv7l")],
)
def test_architectures_have_one_name(word: str, expected: str) -> None:
    assert cpu.architecture(word) == expected


def test_an_x86_processor_has_its_name_and_the_extensions_that_matter(tmp_path: Path) -> None:
    text = "processor\t: 0\nmodel name\t: Xeon\nflags\t\t: fpu sse avx2 amx_int8 avx512_vnni ht\n"
    root = lay(tmp_path, {"proc/cpuinfo": text})
    assert cpu.name(root) == "Xeon"
    assert cpu.isa(root) == ("amx_int8", "avx2", "avx512_vnni")


def test_an_arm_processor_is_named_by_the_parts_of_its_cores(tmp_path: Path) -> None:
    core = "processor : {}\nmodel name : ARMv8 Processor rev 1 (v8l)\nFeatures : fp asimd crc32 asimddp\n"
    core += "CPU implementer : 0x41\nCPU part : {}\n\n"
    text = core.format(0, "0xd05") + core.format(1, "0xd0b") + core.format(2, "0xd0b") + core.format(3, "0xfff")
    text += "Hardware : BCM2835\n"
    root = lay(tmp_path, {"proc/cpuinfo": text})
    assert cpu.name(root) == "1x Cortex-A55 + 2x Cortex-A76 + 1x ARM 0x41 part 0xfff"
    assert cpu.isa(root) == ("asimd", "asimddp")


def test_without_proc_the_processor_still_has_some_name(tmp_path: Path) -> None:
    assert cpu.name(tmp_path)
    assert cpu.isa(tmp_path) == ()
    assert cpu.board(tmp_path) == ""


def test_the_board_is_read_without_its_closing_zero(tmp_path: Path) -> None:
    root = lay(tmp_path, {"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"})
    assert cpu.board(root) == "Raspberry Pi 5 Model B Rev 1.0"


@pytest.mark.parametrize(("machine_word", "expected"), [("arm64", "Apple silicon"), ("x86_64", "")])
def test_a_mac_is_known_by_its_processor(machine_word: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: machine_word)
    assert cpu.board() == expected


@pytest.mark.native("the guest's files show one core, and QEMU runs on all that the machine has")
def test_this_machine_is_described_without_importing_an_engine() -> None:
    this = machine.machine()
    assert this is machine.machine()
    assert this.versions["python"] == platform.python_version()
    assert {"edgelm", "numpy", "onnxruntime"} <= set(this.versions)
    assert this.memory_bytes == psutil.virtual_memory().total
    assert 1 <= this.cores <= (os.cpu_count() or 1)
    assert list(this.isa) == sorted(this.isa)


@pytest.mark.parametrize(
    ("this", "board", "expected"),
    [
        (ARM, "", "generic-arm64"),
        (ARM, "Raspberry Pi 4 Model B Rev 1.4", "raspberry-pi-4"),
        (PI_5, "Raspberry Pi 5 Model B Rev 1.0", "raspberry-pi-5"),
        (PI_5, "Raspberry Pi 400 Rev 1.0", "generic-arm64"),
        (PI_5, "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "jetson-orin-nano"),
        (PI_5, "Some other board", "generic-arm64"),
        (ARM, "Raspberry Pi Zero 2 W Rev 1.0", "raspberry-pi-zero-2-w"),
        (ARM, "NVIDIA Jetson Nano Developer Kit", "jetson-nano"),
        (PI_5, "Apple silicon", "apple-silicon"),
        (msgspec.structs.replace(ARM, arch="x86_64", isa=("avx",)), "", "generic-x86_64"),
        (msgspec.structs.replace(ARM, arch="x86_64", isa=("avx2", "fma")), "", "x86_64-avx2"),
        (msgspec.structs.replace(ARM, arch="x86_64", isa=("avx2", "avx512_vnni", "avx512f")), "", "x86_64-avx512-vnni"),
    ],
)
def test_the_best_fitting_profile_is_found(this: Machine, board: str, expected: str) -> None:
    assert machine.detect(this, board) == expected


def test_a_fingerprint_is_of_the_hardware_and_not_of_the_software() -> None:
    word = machine.fingerprint(ARM)
    assert len(word) == 12
    assert machine.fingerprint(msgspec.structs.replace(ARM, system="Linux 7", versions={"edgelm": "9"})) == word
    for change in ({"cpu": "another"}, {"cores": 8}, {"memory_bytes": 8 * 2**30}, {"isa": ()}, {"arch": "x86_64"}):
        assert machine.fingerprint(msgspec.structs.replace(ARM, **change)) != word


def test_an_architecture_without_a_profile_is_refused() -> None:
    with pytest.raises(DeviceUnavailable, match="no device profile for armv7l"):
        machine.detect(msgspec.structs.replace(ARM, arch="armv7l"), "")
