from __future__ import annotations

import msgspec
import numpy as np
import pytest
import sample

from edgelm.errors import DataError
from edgelm.profile import bootstrap
from edgelm.profile.compare import BUSY, NOISE, Change, broken, compare, limit, told
from edgelm.runs import Conditions, Profile, Run

TEMPLATE = sample.run("litert", "int8-dynamic", 32, (1,), 50_000_000)


def latencies(seed: int, median_ms: float, count: int = 1000) -> tuple[int, ...]:
    """What a machine gives: a floor, neighbours that are alike, a slow wave, a few requests that were interrupted."""
    random = np.random.default_rng(seed)
    noise = np.empty(count)
    noise[0] = 0.0
    for index in range(1, count):
        noise[index] = 0.8 * noise[index - 1] + random.normal(0, 0.6)
    wave = 0.01 * np.sin(np.arange(count) / 60 + random.uniform(0, 6))
    spikes = np.where(random.random(count) < 0.02, random.uniform(0.3, 2.0, count), 0.0)
    return tuple(int(one) for one in median_ms * 1e6 * (1 + 0.03 * np.abs(noise) + wave + spikes))


def of(*runs: Run) -> Profile:
    return msgspec.structs.replace(sample.profile(), runs=runs)


def measured(seed: int, median_ms: float) -> Profile:
    return of(msgspec.structs.replace(TEMPLATE, samples_ns=latencies(seed, median_ms)))


def verdicts(before: Profile, after: Profile) -> dict[str, Change]:
    return {change.metric: change for change in compare(before, after).changes}


@pytest.mark.parametrize("seed", range(8))
def test_a_slow_down_of_a_tenth_is_found_and_a_hundredth_is_noise(seed: int) -> None:
    before = measured(seed, 2.0)
    slower = verdicts(before, measured(100 + seed, 2.2))["p50"]
    assert slower.verdict == "worse"
    assert slower.factor.value == pytest.approx(1.1, abs=0.02)
    assert verdicts(before, measured(200 + seed, 2.02))["p50"].verdict == "noise"
    assert verdicts(measured(100 + seed, 2.2), before)["p50"].verdict == "better"


def test_what_is_the_same_is_called_worse_as_seldom_as_promised() -> None:
    series = [np.array(latencies(seed, 2.0), np.float64) for seed in range(40)]
    found = [bootstrap.ratio(before, after) for before, after in zip(series[::2], series[1::2], strict=True)]
    assert all(abs(one.value - 1) <= NOISE for one in found)
    assert sum(one.low <= 1 <= one.high for one in found) >= 0.85 * len(found)


def test_every_metric_is_compared() -> None:
    found = verdicts(measured(1, 2.0), measured(2, 3.0))
    assert list(found) == ["p50", "p90", "p99", "mean", "peak_rss"]
    assert all(found[metric].factor.value == pytest.approx(1.5, rel=0.1) for metric in ("p50", "p90", "mean"))
    assert (found["peak_rss"].verdict, found["peak_rss"].before) == ("noise", 50_000_000)


def test_a_limit_is_broken_by_more_than_it_allows_and_never_by_noise() -> None:
    changes = compare(measured(1, 2.0), measured(2, 2.2)).changes
    failed = broken(changes, [limit("p50>+5%"), limit("p50>+25%"), limit("peak_rss>1%")])
    assert [(change.metric, str(one)) for change, one in failed] == [("p50", "p50>+5%")]
    assert told(failed).startswith("p50 of litert int8-dynamic, 32 tokens is worse by ")
    assert told(failed).endswith(" %, allowed were 5 %")
    assert broken(compare(measured(1, 2.0), measured(2, 2.02)).changes, [limit("p50>0%")]) == []


@pytest.mark.parametrize("text", ["p50", "p50>5", "p95>+5%", "p50<5%", "p50>-5%"])
def test_a_limit_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"expected one of p50, p90, p99, mean, peak_rss .* as in 'p50>\+5%'"):
        limit(text)


def test_variants_are_matched_and_the_others_named() -> None:
    one, two, three = (
        msgspec.structs.replace(TEMPLATE, samples_ns=(5, 6, 7), engine=engine, tokens=tokens)
        for engine, tokens in (("litert", 16), ("litert", 32), ("onnxruntime", 16))
    )
    found = compare(of(one, two), of(three, two))
    assert {(change.engine, change.tokens) for change in found.changes} == {("litert", 32)}
    assert found.only_before == ("litert int8-dynamic, 16 tokens",)
    assert found.only_after == ("onnxruntime int8-dynamic, 16 tokens",)
    with pytest.raises(DataError, match="in common"):
        compare(of(one), of(three))


@pytest.mark.parametrize(
    ("field", "value"), [("threads", 4), ("batch", 8), ("scenario", "offline"), ("provider", "another")]
)
def test_what_was_measured_in_another_way_is_refused(field: str, value: object) -> None:
    before = msgspec.structs.replace(TEMPLATE, provider="one")
    after = msgspec.structs.replace(before, **{field: value})
    with pytest.raises(DataError, match=f"measured with {field} .* before and {value} after"):
        compare(of(before), of(after))


def test_another_machine_is_refused_unless_it_is_meant() -> None:
    before, machine = measured(1, 2.0), msgspec.structs.replace(sample.machine(), cpu="Cortex-A76")
    after = msgspec.structs.replace(measured(2, 4.0), machine=machine)
    with pytest.raises(DataError, match=r"different machines: Intel.* and Cortex-A76.*--across-machines"):
        compare(before, after)
    assert compare(before, after, across_machines=True).changes[0].verdict == "worse"


def test_what_disturbed_one_of_them_is_told() -> None:
    busy = msgspec.structs.replace(
        measured(1, 2.0).runs[0],
        before=Conditions(clock_s=0, busy_s=0, own_s=0),
        after=Conditions(clock_s=10, busy_s=25, own_s=10),
    )
    assert compare(measured(1, 2.0), of(busy)).notes == (
        "While the profile after was measured, other programs used 1.5 cores: the same may not be true of the other. "
        "There, changes up to 10 % are taken for noise.",
    )
    assert compare(measured(1, 2.0), measured(2, 2.0)).notes == ()


def test_of_a_disturbed_run_a_change_has_to_be_larger_to_be_one() -> None:
    def busy(profile: Profile) -> Profile:
        told = {
            "before": Conditions(clock_s=0, busy_s=0, own_s=0),
            "after": Conditions(clock_s=10, busy_s=25, own_s=10),
        }
        return of(msgspec.structs.replace(profile.runs[0], **told))

    before, slower, slow = measured(1, 2.0), measured(2, 2.14), measured(3, 2.5)
    assert verdicts(before, slower)["p50"].verdict == "worse"
    for one, two in ((busy(before), slower), (before, busy(slower))):
        found = verdicts(one, two)["p50"]
        assert (found.verdict, found.noise) == ("noise", BUSY)
        assert broken([found], [limit("p50>+5%")]) == []
    assert verdicts(before, busy(slow))["p50"].verdict == "worse"
    assert verdicts(before, busy(slow))["peak_rss"].noise == NOISE  # memory is not disturbed by others


def test_a_governor_that_saves_power_is_told_but_disturbs_both_alike() -> None:
    saving = of(msgspec.structs.replace(measured(2, 2.14).runs[0], before=Conditions(governors=("powersave",))))
    found = compare(measured(1, 2.0), saving)
    assert found.notes[0].endswith("the frequency governor was powersave: the same may not be true of the other.")
    assert found.changes[0].verdict == "worse"


def test_another_version_of_an_engine_is_the_same_machine() -> None:
    machine = msgspec.structs.replace(sample.machine(), versions={"onnxruntime": "2.0"}, system="Linux 7")
    assert compare(measured(1, 2.0), msgspec.structs.replace(measured(1, 2.0), machine=machine)).changes
