from __future__ import annotations

from typing import Any

import pytest

from edgelm.errors import DataError
from edgelm.profile.session import asked

TOKENS = (16, 32)


def test_without_anything_it_is_the_quick_one() -> None:
    found = asked(tokens=TOKENS)
    assert (found.scenario, found.seconds, found.tokens) == ("quick", 5.0, TOKENS)
    assert asked(tokens=TOKENS, seconds=0.5).seconds == 0.5


def test_a_scenario_has_the_time_of_its_rules_and_the_texts_that_ship_with_edgelm() -> None:
    found = asked(tokens=TOKENS, scenario="server", rate=3.0)
    assert (found.scenario, found.seconds, found.rate, len(found.texts)) == ("server", 60.0, 3.0, 200)
    assert asked(tokens=TOKENS, scenario="offline", texts=["a", "b"]).texts == ("a", "b")
    assert asked(tokens=TOKENS, scenario="offline", histogram="16:10,32:2.5").weights == {16: 10.0, 32: 2.5}


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("10m", 600), ("1h", 3600)])
def test_times_are_read_as_people_write_them(text: str, seconds: float) -> None:
    found = asked(tokens=TOKENS, sustained=text)
    assert (found.scenario, found.seconds) == ("sustained", seconds)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scenario": "multi-stream"}, "expected one of single-stream, offline, server"),
        ({"scenario": "offline", "sustained": "1m"}, "found both"),
        ({"sustained": "soon"}, "expected a time such as 90s, 10m or 1h"),
        ({"sustained": "0m"}, "expected a time"),
        ({"texts": ["a"]}, "give --scenario too"),
        ({"histogram": "16:1"}, "give --scenario too"),
        ({"scenario": "offline", "texts": ["a"], "histogram": "16:1"}, "found both"),
        ({"scenario": "offline", "histogram": "16"}, "expected lengths with weights"),
        ({"scenario": "offline", "rate": 3.0}, "--rate is of --scenario server"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        asked(tokens=TOKENS, **options)
