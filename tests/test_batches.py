"""Rows of like length, run together: nothing is lost, mixed up or padded more than need be."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from edgelm import batches
from edgelm.runtimes import Ids, Logits
from edgelm.text import Window

MOST = 30


class Echo:
    """Answers with what it was given: per token the id, or per row the sum of those that the mask shows."""

    def __init__(self, *, tokens: bool) -> None:
        self.tokens, self.shapes = tokens, list[tuple[int, ...]]()

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        self.shapes.append(input_ids.shape)
        seen = (input_ids * attention_mask).astype(np.float32)
        return seen[:, :, None] if self.tokens else seen.sum(1, keepdims=True)

    def explain(self) -> dict[str, Any]:
        return {}

    def close(self) -> None: ...


def windows(lengths: Sequence[int]) -> list[Window]:
    random = np.random.default_rng(0)
    return [Window(SimpleNamespace(ids=random.integers(1, 1000, length).tolist())) for length in lengths]


@pytest.mark.parametrize("tokens", [True, False])
@pytest.mark.parametrize("at_once", [1, 16, 64, 1000])
def test_each_input_gets_the_outputs_of_its_own_windows(tokens: bool, at_once: int) -> None:
    made = windows(np.random.default_rng(1).integers(1, MOST + 1, 200).tolist())
    cut = [made[:3], [], *([one] for one in made[3:150]), made[150:]]
    found = list(batches.outputs(Echo(tokens=tokens), cut, at_once, MOST))
    assert [len(outputs) for outputs in found] == [len(some) for some in cut]
    for some, outputs in zip(cut, found, strict=True):
        for window, output in zip(some, outputs, strict=True):
            expected = window.ids[:, None] if tokens else [window.ids.sum()]
            np.testing.assert_array_equal(output, expected)


def test_batches_keep_to_their_tokens_and_are_padded_to_a_step_at_most() -> None:
    session, lengths = Echo(tokens=False), [*range(1, MOST + 1)] * 4
    list(batches.outputs(session, [windows(lengths)], 64, MOST))
    assert sum(rows for rows, _ in session.shapes) == len(lengths)
    for rows, tokens in session.shapes:
        assert rows == 1 or rows * tokens <= 64
        assert tokens % batches.STEP == 0 or tokens == MOST
    padded = sum(rows * tokens for rows, tokens in session.shapes)
    alone = sum(min(-(-length // batches.STEP) * batches.STEP, MOST) for length in lengths)
    assert padded <= alone + 64 * len(set(lengths)) // batches.STEP


def test_a_long_list_is_worked_off_while_it_is_read() -> None:
    session, read = Echo(tokens=False), list[int]()

    def inputs() -> Any:
        for index, window in enumerate(windows([8] * 100)):
            read.append(index)
            yield [window]

    found = batches.outputs(session, cast(Any, inputs()), 16, MOST)
    next(found)
    assert len(read) < 20  # four batches of two rows, not all hundred
