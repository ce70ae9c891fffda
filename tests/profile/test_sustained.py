from __future__ import annotations

import msgspec
import numpy as np
import pytest
import sample

from edgelm.profile import sustained, table_load
from edgelm.profile.sustained import repeat, windows
from edgelm.runs import Conditions, Run

MS, S = 10**6, 10**9


class Machine:
    """A clock that passes only while a request runs, each as long as ``takes`` says for the time."""

    def __init__(self, takes: int = 10 * MS) -> None:
        self.now, self.takes, self.count = 5 * S, takes, 0

    def __call__(self) -> int:
        return self.now

    def request(self) -> None:
        self.now += self.takes
        self.count += 1

    def look(self) -> Conditions:
        return Conditions(clock_s=self.now / S)


def test_requests_follow_each_other_until_the_time_is_over_and_the_machine_is_looked_at_each_second() -> None:
    machine = Machine()
    told = list[float]()
    found = repeat(machine.request, seconds=5, progress=told.append, clock=machine, look=machine.look)
    assert machine.count == len(found.samples_ns) == 500
    assert set(found.samples_ns) == {10 * MS}
    assert found.at_ns == tuple(range(0, 5 * S, 10 * MS))
    assert [one.clock_s for one in found.during] == pytest.approx([6, 7, 8, 9, 10])
    assert found.every == 1
    assert told[-1] == 1.0
    assert told == sorted(told)


def test_of_a_long_run_every_so_manieth_request_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sustained, "_KEPT", 1000)
    machine = Machine(MS)
    found = repeat(machine.request, seconds=10, clock=machine, look=machine.look)
    assert machine.count == 10_000
    assert found.every > 1
    assert len(found.at_ns) == len(found.samples_ns) <= 2001
    assert set(np.diff(found.at_ns)) == {found.every * MS}
    assert max(found.at_ns) > 9.9 * S


def run(minutes_ms: list[float], during: tuple[Conditions, ...] = ()) -> Run:
    """A run whose latency changes from minute to minute, one request in each second."""
    at = [second * S for second in range(60 * len(minutes_ms))]
    took = [int(minutes_ms[second // 60] * MS) for second in range(60 * len(minutes_ms))]
    at.append(60 * len(minutes_ms) * S)  # the last begins when the time is over
    took.append(took[-1])
    made = sample.run("litert", "fp32", 32, tuple(took))
    return msgspec.structs.replace(
        made, scenario="sustained", at_ns=tuple(at), during=during, before=Conditions(clock_s=100.0)
    )


def test_a_run_is_seen_minute_by_minute_and_what_is_slower_is_marked() -> None:
    found = windows(run([2.0, 2.1, 3.0]))
    assert [(one.begin_s, one.p50, one.n) for one in found] == [(0, 2.0, 60), (60, 2.1, 60), (120, 3.0, 60)]
    assert [one.throttled for one in found] == ["", "", "median +50 %"]


def test_a_lower_clock_and_a_counter_are_marked_with_the_temperature_beside_them() -> None:
    during = tuple(
        Conditions(clock_s=100.0 + second, mhz=mhz, celsius=celsius, throttled=count)
        for second, mhz, celsius, count in ((10, 2000, 50, 3), (50, 2000, 60, 3), (70, 1500, 80, 3), (110, 1500, 85, 7))
    )
    first, second = windows(run([2.0, 2.0], during))
    assert (first.mhz, first.celsius, first.throttled) == (2000, 60, "")
    assert (second.mhz, second.celsius, second.throttled) == (1500, 85, "throttled 4 times, clock -25 %")


def test_a_short_run_is_seen_in_halves() -> None:
    short = run([2.0])
    found = windows(short)
    assert [one.begin_s for one in found] == [0, 30]
    assert windows(sample.run("litert", "fp32", 32, (1, 2))) == ()


def test_the_first_minute_stands_beside_the_last() -> None:
    assert table_load.headline(run([2.0, 2.1, 3.0])) == (
        "Median 2.00 ms in the first part and 3.00 ms in the last (+50.0 %); 1 of 3 marked as throttled."
    )
    made = table_load.sustained(run([2.0, 3.0]))
    assert [row[:3] for row in made.rows] == [("0 min", "–", "2.00"), ("1 min", "median +50 %", "3.00")]  # noqa: RUF001
    assert all(len(row) == len(made.columns) for row in made.rows)
