from __future__ import annotations

from pathlib import Path

import pytest

from edgelm.devices.power import Meter, meter

RAPL = "sys/class/powercap/intel-rapl:"
INA = "sys/class/hwmon/hwmon3"
BATTERY = "sys/class/power_supply/BAT0"


def lay(root: Path, files: dict[str, str | int]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def of(root: Path) -> Meter:
    found = meter(root)
    assert isinstance(found, Meter), found
    return found


def test_counters_are_added_over_the_packages_and_wrap_around(tmp_path: Path) -> None:
    lay(tmp_path, {f"{RAPL}{n}/max_energy_range_uj": 1000 for n in (0, 1)})
    lay(tmp_path, {f"{RAPL}0/energy_uj": 900, f"{RAPL}1/energy_uj": 100, f"{RAPL}0:0/energy_uj": 7})
    found = of(tmp_path)
    assert found.counts
    assert found.joules() == 0
    lay(tmp_path, {f"{RAPL}0/energy_uj": 100, f"{RAPL}1/energy_uj": 150})
    assert found.joules() == pytest.approx(250e-6)
    lay(tmp_path, {f"{RAPL}1/energy_uj": 160})
    assert found.joules() == pytest.approx(260e-6)


def test_a_board_shows_the_power_of_the_whole_module(tmp_path: Path) -> None:
    files: dict[str, str | int] = {f"{INA}/name": "ina3221"}
    for number, (label, millivolts, milliamperes) in enumerate((("VDD_CPU", 5000, 100), ("VDD_IN", 5000, 900)), 1):
        files |= {f"{INA}/in{number}_label": label, f"{INA}/in{number}_input": millivolts}
        files |= {f"{INA}/curr{number}_input": milliamperes}
    found = of(lay(tmp_path, files))
    assert not found.counts
    assert found.watts() == pytest.approx(4.5)


def test_a_sensor_that_multiplies_by_itself(tmp_path: Path) -> None:
    assert of(lay(tmp_path, {f"{INA}/name": "ina226", f"{INA}/power1_input": 3_250_000})).watts() == pytest.approx(3.25)


@pytest.mark.parametrize(
    "files", [{"power_now": 7_500_000}, {"current_now": -1_500_000, "voltage_now": 5_000_000}], ids=["power", "current"]
)
def test_a_battery_that_empties(files: dict[str, int], tmp_path: Path) -> None:
    told: dict[str, str | int] = {"type": "Battery", "status": "Discharging", **files}
    found = of(lay(tmp_path, {f"{BATTERY}/{name}": value for name, value in told.items()}))
    assert found.watts() == pytest.approx(7.5)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no RAPL counters, no current sensor and no battery"),
        ({f"{RAPL}0/name": "package-0"}, "only root may read the counters"),
        ({f"{BATTERY}/type": "Battery", f"{BATTERY}/status": "Charging"}, "unplug it"),
        ({f"{BATTERY}/type": "Battery", f"{BATTERY}/status": "Discharging"}, "neither its power nor its current"),
        ({"sys/class/power_supply/AC/type": "Mains"}, "no battery"),
        ({f"{INA}/name": "ina219"}, "no current sensor"),
    ],
)
def test_a_machine_that_does_not_tell_says_why(files: dict[str, str | int], words: str, tmp_path: Path) -> None:
    found = meter(lay(tmp_path, files))
    assert isinstance(found, str)
    assert words in found
