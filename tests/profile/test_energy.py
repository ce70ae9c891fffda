from __future__ import annotations

from pathlib import Path

import pytest

from edgelm.devices.power import Meter
from edgelm.profile.energy import measured


class Board:
    """Uses two watts at rest and five while a request runs; time passes only by resting and running."""

    def __init__(self, counts: bool) -> None:
        self.now, self.used, self.counts, self.source, self.power = 0.0, 0.0, counts, "a board", 2.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pass_(seconds, 2.0)

    def request(self) -> None:
        self.pass_(0.01, 5.0)

    def pass_(self, seconds: float, watts: float) -> None:
        self.now += seconds
        self.used += seconds * watts
        self.power = watts

    def joules(self) -> float:
        assert self.counts
        return self.used

    def watts(self) -> float:
        assert not self.counts
        return self.power


@pytest.mark.parametrize("counts", [True, False])
def test_a_request_costs_what_was_used_while_it_ran(counts: bool) -> None:
    board = Board(counts)
    found = measured(board.request, board, seconds=2.0, clock=board.clock, sleep=board.sleep)  # type: ignore[arg-type]
    assert found.watts == pytest.approx(5.0)
    assert found.idle_watts == pytest.approx(2.0)
    assert found.joules == pytest.approx(0.05)
    assert found.source == "a board"


def test_a_real_meter_that_stands_still_has_used_nothing(tmp_path: Path) -> None:
    file = tmp_path / "energy_uj"
    file.write_text("5\n")
    board = Board(True)
    meter = Meter("a file", True, ((file,),), 1e-6, (100,))
    assert measured(board.request, meter, seconds=0.1, clock=board.clock, sleep=board.sleep).joules == 0
