from __future__ import annotations

import pytest

from edgelm.errors import DeviceUnavailable
from edgelm.runtimes.place import DEVICES, Place, parse


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_is_known_by_its_name(name: str) -> None:
    assert parse(name) == Place(name)


def test_one_of_several_is_named_by_its_number() -> None:
    assert parse("cuda:1", allow_cpu_ops=True) == Place("cuda", 1, allow_cpu_ops=True)
    assert [str(Place("cuda", number)) for number in (0, 1)] == ["cuda", "cuda:1"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("cude", "cuda"),
        ("gpu", "cuda"),
        ("CPU", "cpu"),
        ("trt", "tensorrt"),
        ("openvina", "openvino"),
        ("cud:1", "cuda"),
    ],
)
def test_a_typo_is_told_what_may_have_been_meant(text: str, meant: str) -> None:
    with pytest.raises(DeviceUnavailable, match=f"did you mean '{meant}'?"):
        parse(text)


def test_what_is_like_nothing_is_told_all_there_is() -> None:
    with pytest.raises(DeviceUnavailable, match=r"expected one of auto, coreml, cpu, .*, zzz"):
        parse("", others=("zzz",))


@pytest.mark.parametrize("text", ["cpu:1", "auto:0", "cuda:", "cuda:x", "cuda:-1", "cuda:1:2"])
def test_a_number_belongs_after_a_device_that_there_can_be_several_of(text: str) -> None:
    with pytest.raises(DeviceUnavailable, match="expected a number after the colon"):
        parse(text)


def test_engines_of_others_bring_devices() -> None:
    assert parse("abacus", others=("abacus",)) == Place("abacus")
