from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from table import made

from edgelm.compress.budget import STEPS, STEPS_OF_TWO, Limits, Options, search, within
from edgelm.compress.importance import Importance
from edgelm.compress.latency import Table
from edgelm.compress.widths import Widths
from edgelm.errors import RecipeError

SHAPE = tiny.encoder(heads=(4, 4, 4), ffn=(48, 48, 48)).config
LIMITS = Limits(ms=None, bytes=None, tokens=16, positions=64, vocab=SHAPE.vocab_size)


def brute_force(options: list[Options], budgets: list[float]) -> float:
    """The least loss of all combinations that are within the budgets."""
    losses = []
    for picks in itertools.product(*(range(len(o.units)) for o in options)):
        spent = [sum(o.costs[a][p] for o, p in zip(options, picks, strict=True)) for a in range(len(budgets))]
        if all(s <= b for s, b in zip(spent, budgets, strict=True)):
            losses.append(sum(o.loss[p] for o, p in zip(options, picks, strict=True)))
    return float(min(losses))


@st.composite
def problems(draw: st.DrawFn, axes: int) -> tuple[list[Options], list[float]]:
    """Sublayers with whole costs, the least of each 0, and budgets that the steps divide without a rest."""
    steps = STEPS if axes == 1 else STEPS_OF_TWO
    numbers = st.integers(0, 30)
    found = []
    for _ in range(draw(st.integers(1, 4))):
        count = draw(st.integers(1, 5))
        rows = [sorted(draw(st.lists(numbers, min_size=count, max_size=count))) for _ in range(axes)]
        loss = np.array(draw(st.lists(numbers, min_size=count, max_size=count)), float)
        costs = tuple(np.array(row, float) - row[0] for row in rows)
        found.append(Options(np.arange(count), loss, costs))
    divisors = [n for n in range(1, 100) if steps % n == 0]
    return found, [float(draw(st.sampled_from(divisors))) for _ in range(axes)]


@pytest.mark.parametrize("axes", [1, 2])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_search_is_as_good_as_trying_everything(axes: int, data: st.DataObject) -> None:
    options, budgets = data.draw(problems(axes))
    picks = search(options, budgets)
    for axis, budget in enumerate(budgets):
        assert sum(o.costs[axis][p] for o, p in zip(options, picks, strict=True)) <= budget
    found = sum(o.loss[p] for o, p in zip(options, picks, strict=True))
    assert found == brute_force(options, budgets)


def scores(seed: int = 0) -> Importance:
    generator = torch.Generator().manual_seed(seed)
    heads = tuple(torch.rand(4, generator=generator, dtype=torch.float64) for _ in range(3))
    ffn = tuple(torch.rand(48, generator=generator, dtype=torch.float64) / 12 for _ in range(3))
    return Importance(heads, ffn, torch.ones(3, dtype=torch.float64))


def chosen(limits: Limits, table: Table | None = None) -> Widths:
    return within(limits, table or made(), 8)(SHAPE, scores())


def test_the_widths_keep_the_latency_and_use_it() -> None:
    table = made()
    dense = table.predict_ms(SHAPE, 16)
    for share in (0.4, 0.6, 0.8):
        widths = chosen(replace(LIMITS, ms=share * dense))
        found = table.predict_ms(replace(SHAPE, heads=widths.heads, ffn=widths.ffn), 16)
        assert 0.9 * share * dense < found <= share * dense
        assert all(width % 8 == 0 for width in widths.ffn)


def test_the_widths_keep_the_size_and_both_at_once() -> None:
    table = made()
    dense_ms, dense_bytes = table.predict_ms(SHAPE, 16), table.predict_bytes(SHAPE, 64)
    small = chosen(replace(LIMITS, bytes=0.7 * dense_bytes))
    assert table.predict_bytes(replace(SHAPE, heads=small.heads, ffn=small.ffn), 64) <= 0.7 * dense_bytes
    both = replace(SHAPE, **vars(chosen(replace(LIMITS, ms=0.7 * dense_ms, bytes=0.8 * dense_bytes))))
    assert table.predict_ms(both, 16) <= 0.7 * dense_ms
    assert table.predict_bytes(both, 64) <= 0.8 * dense_bytes


def test_room_for_all_keeps_all() -> None:
    assert chosen(replace(LIMITS, ms=1e9)) == Widths(SHAPE.heads, SHAPE.ffn)


def test_what_scores_more_is_kept_in_more_width() -> None:
    table, some = made(), scores()
    strong = Importance((some.heads[0], 100 * some.heads[1], some.heads[2]), some.ffn, some.layers)
    limits = replace(LIMITS, ms=0.4 * table.predict_ms(SHAPE, 16))
    assert within(limits, table, 8)(SHAPE, strong).heads[1] == 4


def test_a_latency_that_cannot_be_met_says_so_and_what_can() -> None:
    with pytest.raises(RecipeError, match=r"budget\.p50_ms.*3 layers take.*prune\.layers") as caught:
        chosen(replace(LIMITS, ms=0.01))
    assert "\n" not in str(caught.value)


def test_a_size_that_cannot_be_met_points_to_the_vocabulary() -> None:
    with pytest.raises(RecipeError, match=r"budget\.bytes: 1000.*\[vocab\]"):
        chosen(replace(LIMITS, bytes=1000))
