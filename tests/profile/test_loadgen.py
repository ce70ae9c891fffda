"""With MLPerf's own library: what is asserted is counts and order, never how fast this machine is."""

from __future__ import annotations

import sys
import time
from typing import Literal

import numpy as np
import pytest

from edgelm.errors import MissingExtra
from edgelm.profile import loadgen
from edgelm.profile.loadgen import Load, generate

SECOND = 10**9


def load(
    scenario: Literal["single-stream", "offline", "server"], count: int, rate: float, seconds: float = 0.0
) -> Load:
    return Load(scenario=scenario, min_seconds=seconds, min_count=count, rate=rate, bound_ns=SECOND)


class Requests:
    def __init__(self, kinds: int, takes_s: float = 0.0) -> None:
        self.seen, self.takes_s = list[int](), takes_s
        self.all = [lambda kind=kind: self.run(kind) for kind in range(kinds)]

    def run(self, kind: int) -> None:
        self.seen.append(kind)
        if self.takes_s:
            time.sleep(self.takes_s)


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("mlperf_loadgen", reason="pip install 'edgelm[loadgen]'")


def test_single_stream_goes_on_until_the_count_and_one_request_follows_the_other() -> None:
    requests = Requests(7)
    found = generate(requests.all, load("single-stream", 100, rate=1000))
    assert list(found.rows) == requests.seen
    assert len(found.rows) >= 100
    assert set(found.rows) == set(range(7))
    ends = np.array(found.at_ns) + np.array(found.samples_ns)
    assert np.all(np.array(found.at_ns[1:]) >= ends[:-1])
    assert found.at_ns[0] == 0
    assert found.verdict == "VALID"
    assert found.loadgen_ns is not None  # its p90 counts from earlier to later than we do, about the same requests
    assert found.loadgen_ns >= np.percentile(found.samples_ns, 80, method="inverted_cdf")


def test_single_stream_goes_on_until_the_time() -> None:
    requests = Requests(1, takes_s=0.001)
    found = generate(requests.all, load("single-stream", 1, rate=1000, seconds=0.3))
    assert found.at_ns[-1] + found.samples_ns[-1] >= 0.29 * SECOND
    assert len(found.rows) > 1


def test_offline_sends_everything_at_once() -> None:
    requests = Requests(5)
    found = generate(requests.all, load("offline", 64, rate=100))
    assert len(found.rows) >= 64
    assert set(found.at_ns) == {0}
    assert found.loadgen_ns is None
    assert list(found.samples_ns) == sorted(found.samples_ns)


def test_server_sends_at_random_at_the_rate_asked_for_and_does_not_wait_for_answers() -> None:
    requests = Requests(3, takes_s=0.004)
    found = generate(requests.all, load("server", 200, rate=200))
    assert len(found.rows) >= 200
    assert found.loadgen_ns is not None
    assert found.loadgen_ns >= 4e6  # no answer takes less
    gaps = np.diff(found.at_ns)
    assert np.all(gaps >= 0)
    waited = np.array(found.at_ns[1:]) < np.array(found.at_ns[:-1]) + np.array(found.samples_ns[:-1])
    assert waited.any()  # some came while another was being answered


def test_what_lasts_too_long_is_invalid_by_loadgens_own_word() -> None:
    requests = Requests(1, takes_s=0.002)
    late = Load(scenario="server", min_seconds=0.0, min_count=50, rate=100, bound_ns=1000)
    assert generate(requests.all, late).verdict.startswith("INVALID")


@pytest.mark.parametrize("scenario", ["single-stream", "offline", "server"])
def test_a_request_that_fails_ends_the_test_with_its_error(
    scenario: Literal["single-stream", "offline", "server"],
) -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        generate([fail], load(scenario, 10, rate=1000))


def test_without_the_extra_the_line_that_installs_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    with pytest.raises(MissingExtra, match=r"pip install 'edgelm\[loadgen\]'"):
        generate([], load("offline", 1, rate=1))


def test_the_rules_are_those_of_mlperf() -> None:
    import mlperf_loadgen

    settings = loadgen._settings(mlperf_loadgen, load("single-stream", 1024, rate=100, seconds=60))
    assert (settings.min_duration_ms, settings.min_query_count) == (60_000, 1024)
    assert settings.single_stream_target_latency_percentile == 0.9
    assert settings.server_target_latency_percentile == 0.99
    assert settings.mode == mlperf_loadgen.TestMode.PerformanceOnly
