from __future__ import annotations

import os
from collections import namedtuple
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgelm.devices import conditions

CPU = "sys/devices/system/cpu"
Battery = namedtuple("Battery", "power_plugged")


@pytest.fixture(autouse=True)
def _two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2}, raising=False)


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_machine_that_tells_everything(tmp_path: Path) -> None:
    files = {f"{CPU}/cpu{n}/cpufreq/scaling_governor": f"{name}\n" for n, name in enumerate(("a", "b", "c"))}
    files |= {f"{CPU}/cpu{n}/cpufreq/scaling_cur_freq": f"{khz}\n" for n, khz in enumerate((9, 9, 2_400_000))}
    files |= {f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "1200000\n"}
    files |= {f"{CPU}/cpu{n}/thermal_throttle/core_throttle_count": "3\n" for n in range(3)}
    files |= {f"{CPU}/cpu0/thermal_throttle/package_throttle_count": "4\n"}
    files |= {
        "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
        "sys/class/thermal/thermal_zone0/temp": "51500\n",
    }
    files |= {"sys/class/thermal/thermal_zone1/type": "iwlwifi_1\n", "sys/class/thermal/thermal_zone1/temp": "90000\n"}
    files |= {"sys/class/hwmon/hwmon0/name": "k10temp\n", "sys/class/hwmon/hwmon0/temp1_input": "62000\n"}
    files |= {"sys/class/hwmon/hwmon1/name": "nvme\n", "sys/class/hwmon/hwmon1/temp1_input": "99000\n"}
    files |= {"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "150000 100000\n"}
    found = conditions.now(lay(tmp_path, files))
    assert found.governors == ("a", "c")  # processor 1 is not ours
    assert found.mhz == 1800
    assert found.throttled == 10
    assert found.celsius == 62.0
    assert found.quota == 1.5


def test_a_virtual_machine_states_a_clock_and_nothing_more(tmp_path: Path) -> None:
    found = conditions.now(lay(tmp_path, {"proc/cpuinfo": "cpu MHz\t\t: 2000.5\ncpu MHz\t\t: 2001.5\n"}))
    assert found.mhz == 2001
    assert (found.governors, found.celsius, found.throttled, found.quota) == ((), None, None, None)


def test_what_a_machine_does_not_tell_is_absent(tmp_path: Path) -> None:
    assert conditions.now(tmp_path).mhz is None


@pytest.mark.parametrize(
    ("battery", "expected"),
    [(None, None), (Battery(True), "mains"), (Battery(False), "battery"), (Battery(None), None)],
)
def test_the_source_of_power(
    battery: Any, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery, raising=False)
    assert conditions.now(tmp_path).power == expected


@pytest.mark.native("QEMU shows no processor time of a process")
def test_processor_time_grows_by_what_this_process_uses(tmp_path: Path) -> None:
    before = conditions.now(tmp_path)
    own = before.own_s
    while own is not None and before.own_s is not None and own < before.own_s + 0.05:
        sum(range(10_000))
        times = psutil.Process().cpu_times()
        own = times.user + times.system
    after = conditions.now(tmp_path)
    assert after.own_s is not None
    assert before.own_s is not None
    assert after.own_s >= before.own_s + 0.05
    assert after.busy_s is not None
    assert before.busy_s is not None
    assert after.busy_s >= before.busy_s  # in ticks of 10 ms
    assert after.at is not None
    assert before.at is not None
    assert after.at > before.at


def test_idle_time_is_not_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = namedtuple("times", "user nice system idle iowait irq steal guest")
    monkeypatch.setattr(psutil, "cpu_times", lambda: times(1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 0.5))
    found = conditions.now(tmp_path)
    assert (found.busy_s, found.stolen_s) == (39.0, 64.0)
