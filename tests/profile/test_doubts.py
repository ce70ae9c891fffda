from __future__ import annotations

import msgspec
import pytest
import sample

from edgelm.profile.doubts import causes, doubts, ties
from edgelm.runs import Conditions, Profile, Run

PROFILE = sample.profile()
STEADY, NOISY = (100, 101) * 50, (100, 200) * 50


def of(*runs: Run, load: float = 0.0) -> Profile:
    return sample.loaded(msgspec.structs.replace(PROFILE, runs=runs), load)


def test_a_steady_quiet_profile_leaves_no_doubt() -> None:
    assert doubts(of(sample.run("litert", "fp32", 16, STEADY), load=0.9)) == ()


def test_scatter_few_samples_and_a_busy_machine_are_told() -> None:
    runs = (
        sample.run("litert", "fp32", 16, NOISY),
        sample.run("litert", "fp32", 32, NOISY),
        sample.run("litert", "int8-dynamic", 64, (100,) * 99),
    )
    unsteady, short, busy = doubts(of(*runs, load=1.4))
    assert unsteady.endswith("10 % of the mean or more: litert fp32 at 16, 32 tokens.")
    assert short.endswith("p99 is their maximum: litert int8-dynamic at 64 tokens.")
    assert busy.endswith("load average was 1.4.")


def test_scatter_is_told_with_its_causes() -> None:
    before, after = Conditions(mhz=2000, celsius=50), Conditions(mhz=1500, celsius=82)
    run = msgspec.structs.replace(sample.run("litert", "fp32", 16, NOISY), before=before, after=after)
    (found,) = doubts(msgspec.structs.replace(PROFILE, runs=(run,)))
    assert found.endswith(
        "litert fp32 at 16 tokens. Meanwhile the clock went from 2000 to 1500 MHz and its temperature went from 50 to "
        "82 °C."
    )


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {}, ()),
        ({"mhz": 2000}, {"mhz": 1950}, ()),
        ({"mhz": 2000}, {}, ()),
        ({"governors": ("powersave",)}, {}, ("the frequency governor was powersave",)),
        ({"governors": ("performance",)}, {}, ()),
        ({"throttled": 3}, {"throttled": 5}, ("the processor throttled itself 2 times",)),
        ({"throttled": 3}, {"throttled": 3}, ()),
        ({"clock_s": 0, "busy_s": 50, "own_s": 1}, {"clock_s": 10, "busy_s": 75, "own_s": 11}, ("used 1.5 cores",)),
        ({"clock_s": 0, "busy_s": 50, "own_s": 1}, {"clock_s": 10, "busy_s": 61, "own_s": 11}, ()),
        ({"clock_s": 0, "stolen_s": 1}, {"clock_s": 10, "stolen_s": 2}, ("took 10% of a core away",)),
        ({"busy_s": 50, "own_s": 1}, {"busy_s": 75, "own_s": 11}, ()),
    ],
)
def test_a_cause_is_named_when_the_machine_tells_it(
    before: dict[str, object], after: dict[str, object], expected: tuple[str, ...]
) -> None:
    found = causes(msgspec.convert(before, Conditions), msgspec.convert(after, Conditions))
    assert len(found) == len(expected)
    assert all(one.endswith(words) for one, words in zip(found, expected, strict=True))


def test_variants_that_are_equally_fast_are_named_and_others_are_not() -> None:
    one, two, three = (
        sample.run("litert", precision, 32, times)
        for precision, times in (
            ("fp32", (1000, 1010, 990, 1005) * 50),
            ("int8-dynamic", (1002, 1008, 992, 1003) * 50),
            ("fp16", (1500, 1510, 1490, 1505) * 50),
        )
    )
    (found,) = ties([three, two, one])
    assert found.startswith("At 32 tokens the difference between ")
    assert "litert fp32" in found
    assert "litert int8-dynamic" in found
    assert "fp16" not in found
    assert "inside the noise" in found
    assert ties([one, msgspec.structs.replace(two, tokens=64)]) == ()


def test_a_scenario_is_not_blamed_for_its_lengths_but_told_what_disturbed_it_and_what_loadgen_says() -> None:
    run = msgspec.structs.replace(
        sample.run("litert", "fp32", 0, NOISY),
        scenario="server",
        before=Conditions(throttled=1),
        after=Conditions(throttled=4),
        verdict="INVALID Reduce the rate.",
    )
    assert doubts(msgspec.structs.replace(PROFILE, runs=(run, msgspec.structs.replace(run, verdict="VALID")))) == (
        "While litert fp32 ran, the processor throttled itself 3 times.",
        "While litert fp32 ran, the processor throttled itself 3 times.",
        "By MLPerf's rules the run of litert fp32 does not count: INVALID Reduce the rate.",
    )


def test_the_original_is_no_rival() -> None:
    run = sample.run("pytorch", "fp32", 32, STEADY)
    assert ties([run, msgspec.structs.replace(run, engine="litert")]) == ()
