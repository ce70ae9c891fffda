from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgelm import devices
from edgelm.errors import DeviceUnavailable, RecipeError

CHECKOUT = Path(devices.__file__).parent.resolve()


def test_names_are_those_of_the_files() -> None:
    assert devices.names() == tuple(sorted(path.stem for path in CHECKOUT.glob("*.toml")))
    assert "generic-x86_64" in devices.names()


@pytest.mark.parametrize("name", devices.names())
def test_every_profile_loads_under_its_own_name_and_gives_its_sources(name: str) -> None:
    device = devices.load(name)
    assert device.name == name
    assert device.formats
    assert device.precisions
    assert all(len(figure.source.split()) >= 3 for figure in device.figures)
    assert all(figure.value > 0 for figure in device.figures)
    assert all(avoid.reason and len(avoid.source.split()) >= 3 for avoid in device.avoid)
    assert not {avoid.precision for avoid in device.avoid} & set(device.precisions)


@pytest.mark.parametrize("name", devices.names())
def test_isa_names_are_those_that_the_machine_is_asked_for(name: str) -> None:
    from edgelm.devices import cpu

    assert set(devices.load(name).isa) <= cpu._MATTERS


def test_a_typo_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(DeviceUnavailable, match="did you mean 'raspberry-pi-5'"):
        devices.load("rasberry-pi5")


def test_something_unlike_any_name_is_answered_with_all_of_them() -> None:
    with pytest.raises(DeviceUnavailable, match=r"expected one of .*generic-arm64, .*raspberry-pi-5"):
        devices.load("zzz")


def test_a_file_of_the_users_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text((CHECKOUT / "generic-arm64.toml").read_text().replace("generic-arm64", "mine"))
    assert devices.load(str(file)).name == "mine"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.toml"):
        devices.load(str(tmp_path / "none.toml"))


def test_a_mistake_in_a_file_names_the_file_and_the_key(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text((CHECKOUT / "generic-arm64.toml").read_text() + "\n[[avoids]]\n")
    with pytest.raises(RecipeError, match=r"mine\.toml.*unknown key 'avoids'; did you mean 'avoid'"):
        devices.load(str(file))


def test_the_folder_refuses_to_be_imported_under_another_name() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import devices"], cwd=CHECKOUT.parent, capture_output=True, text=True, check=False
    )
    assert "ImportError: use edgelm.devices" in done.stderr
