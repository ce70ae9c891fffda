from __future__ import annotations

import json

import pytest
import sample

from edgelm.errors import BundleError
from edgelm.runs import Profile, read
from edgelm.schema import encode

FIRST = {
    "schema": "edgelm.profile/1",
    "edgelm": "0.1.0",
    "machine": {
        "arch": "arm64",
        "system": "Linux 6.6",
        "cpu": "4x Cortex-A76",
        "isa": ["asimd"],
        "cores": 4,
        "memory_bytes": 1,
        "versions": {},
    },
    "runs": [
        {
            "engine": "litert",
            "precision": "fp32",
            "tokens": 16,
            "batch": 1,
            "threads": 2,
            "warmup": 5,
            "samples_ns": [3, 4],
            "peak_rss_bytes": peak,
        }
        for peak in (7, 0)
    ],
    "load_start": 0.5,
    "load_end": 0.75,
}


def read_json(plain: object) -> Profile:
    return read(json.dumps(plain).encode(), source="some.json", error=BundleError)


def test_a_profile_is_the_same_after_writing_and_reading() -> None:
    assert read(encode(sample.profile()), source="x", error=BundleError) == sample.profile()


def test_a_profile_of_version_1_is_read_as_one_of_version_2() -> None:
    found = read_json(FIRST)
    assert found.schema == "edgelm.profile/2"
    assert (found.load_start, found.load_end) == (0.5, 0.75)
    assert [run.peak_rss_bytes for run in found.runs] == [7, 0]
    assert found.runs[0].samples_ns == (3, 4)
    assert (found.runs[0].scenario, found.runs[0].provider) == ("quick", "")
    assert found.machine.cpu == "4x Cortex-A76"
    assert {run.harness_ns for run in found.runs} == {None}


def test_a_profile_from_before_the_harness_was_measured_is_read() -> None:
    plain = json.loads(encode(sample.profile()))
    for run in plain["runs"]:
        del run["harness_ns"]
    assert read_json(plain) == sample.profile()


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        (FIRST | {"schema": "edgelm.profile/3"}, "found edgelm.profile/3; update edgelm"),
        ({}, "found no schema"),
        (FIRST | {"load": [0.1, 0.2]}, "found what --json writes"),
        ({key: value for key, value in FIRST.items() if key != "load_end"}, "load_end"),
        ([1], "expected a profile"),
    ],
)
def test_anything_else_is_refused_in_one_line(plain: object, words: str) -> None:
    with pytest.raises(BundleError, match=words) as error:
        read_json(plain)
    assert str(error.value).startswith("some.json: ")
    assert "\n" not in str(error.value)


def test_what_cannot_be_changed_stays_as_it_was_measured() -> None:
    with pytest.raises(AttributeError):
        sample.profile().runs[0].samples_ns = ()  # type: ignore[misc]
