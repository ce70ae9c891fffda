from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from edgelm.profile.timing import interleaved


class Clock:
    """Time that passes only when a request is run."""

    def __init__(self) -> None:
        self.now = 1_000
        self.calls: list[str] = []

    def __call__(self) -> int:
        return self.now

    def request(self, name: str, takes: int) -> Callable[[], None]:
        def run() -> None:
            self.calls.append(name)
            self.now += takes

        return run


def test_requests_take_turns_and_each_has_its_own_times() -> None:
    clock = Clock()
    requests = {"a": clock.request("a", 3), "b": clock.request("b", 5)}
    samples = interleaved(requests, warmup=0, seconds=0, min_count=3, clock=clock)
    assert clock.calls == ["a", "b"] * 3
    assert samples == {"a": (3, 3, 3), "b": (5, 5, 5)}


def test_warm_up_is_run_and_not_counted() -> None:
    clock = Clock()
    samples = interleaved({"a": clock.request("a", 7)}, warmup=4, seconds=0, min_count=2, clock=clock)
    assert len(clock.calls) == 6
    assert samples == {"a": (7, 7)}


def test_with_a_rest_each_sample_is_preceded_by_a_request_that_does_not_count() -> None:
    clock = Clock()
    requests = {"a": clock.request("a", 3), "b": clock.request("b", 5)}
    samples = interleaved(requests, warmup=0, seconds=0, min_count=2, rest_s=1e-6, clock=clock)
    assert clock.calls == ["a", "a", "b", "b"] * 2
    assert samples == {"a": (3, 3), "b": (5, 5)}


def test_it_goes_on_until_the_time_when_the_count_is_reached_first() -> None:
    clock = Clock()
    requests = {"a": clock.request("a", 10**8), "b": clock.request("b", 10**8)}
    samples = interleaved(requests, warmup=0, seconds=1.0, min_count=1, clock=clock)
    assert [len(times) for times in samples.values()] == [5, 5]


def test_it_goes_on_until_the_count_when_the_time_is_reached_first() -> None:
    clock = Clock()
    samples = interleaved({"a": clock.request("a", 10**9)}, warmup=0, seconds=1.0, min_count=4, clock=clock)
    assert len(samples["a"]) == 4


def test_warm_up_does_not_count_as_time() -> None:
    clock = Clock()
    samples = interleaved({"a": clock.request("a", 10**9)}, warmup=10, seconds=2.0, min_count=1, clock=clock)
    assert len(samples["a"]) == 2


def test_progress_tells_the_share_that_is_furthest_behind_and_ends_at_one() -> None:
    clock, told = Clock(), list[float]()
    interleaved({"a": clock.request("a", 10**9)}, warmup=0, seconds=2.0, min_count=4, progress=told.append, clock=clock)
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_nothing_to_run_ends_at_once() -> None:
    assert interleaved({}, warmup=3, seconds=100.0, min_count=100) == {}


def test_the_collector_rests_while_timing_and_works_afterwards() -> None:
    seen = list[bool]()
    interleaved({"a": lambda: seen.append(gc.isenabled())}, warmup=0, seconds=0, min_count=2)
    assert seen == [False, False]
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_the_collector_works_again_after_a_request_that_fails() -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        interleaved({"a": fail}, warmup=0, seconds=0, min_count=1)
    assert gc.isenabled()


def test_the_clock_is_a_real_one_by_default() -> None:
    samples = interleaved({"a": lambda: sum(range(1000))}, warmup=1, seconds=0, min_count=3)
    assert all(time > 0 for time in samples["a"])
