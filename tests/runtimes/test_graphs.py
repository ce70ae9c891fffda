"""When a shape is recorded, and that its buffers are not another's. What CUDA makes of it is tested on a GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgelm.runtimes import Ids, graphs
from edgelm.runtimes.graphs import Graphs


class Value:
    """An ``OrtValue`` without a device."""

    def __init__(self, values: Any) -> None:
        self.values = np.array(values)

    def update_inplace(self, values: Any) -> None:
        assert values.shape == self.values.shape
        self.values[...] = values

    def numpy(self) -> Any:
        return self.values.copy()


class Options:
    def __init__(self) -> None:
        self.graph = ""

    def add_run_config_entry(self, key: str, value: str) -> None:
        assert key == "gpu_graph_id"
        self.graph = value


class Binding:
    def __init__(self) -> None:
        self.inputs, self.output = dict[str, Value](), Value(0.0)

    def bind_ortvalue_input(self, name: str, value: Value) -> None:
        self.inputs[name] = value

    def bind_ortvalue_output(self, name: str, value: Value) -> None:
        assert name == "logits"
        self.output = value


class Fake:
    """A session that sums the shown ids of each row; it tells by which graph it was asked."""

    def __init__(self) -> None:
        self.asked = list[str]()

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="logits")]

    def io_binding(self) -> Binding:
        return Binding()

    def run(self, names: None, feed: dict[str, Ids], options: Options) -> list[Any]:
        self.asked.append(options.graph)
        return [answer(**feed)]

    def run_with_iobinding(self, binding: Binding, options: Options) -> None:
        self.asked.append(options.graph)
        binding.output.update_inplace(answer(**{name: value.values for name, value in binding.inputs.items()}))


ONNXRUNTIME = SimpleNamespace(
    RunOptions=Options,
    OrtValue=SimpleNamespace(
        ortvalue_from_numpy=lambda values, device, number: Value(values),
        ortvalue_from_shape_and_type=lambda shape, kind, device, number: Value(np.zeros(shape, kind)),
    ),
)


def answer(input_ids: Ids, attention_mask: Ids) -> Any:
    return (input_ids * attention_mask).sum(1, keepdims=True).astype(np.float32)


def ask(running: Graphs, rows: int, tokens: int, seed: int = 0) -> None:
    random = np.random.default_rng(seed)
    feed: dict[str, Ids] = {
        "input_ids": random.integers(0, 99, (rows, tokens), np.int32),
        "attention_mask": random.integers(0, 2, (rows, tokens), np.int32),
    }
    np.testing.assert_array_equal(running.run(None, feed)[0], answer(**feed))


@pytest.fixture
def session() -> Fake:
    return Fake()


def test_a_shape_is_recorded_when_it_comes_again(session: Fake) -> None:
    running = Graphs(ONNXRUNTIME, session, 0)
    for seed, (rows, tokens) in enumerate([(1, 8), (1, 8), (2, 8), (1, 8), (2, 8), (1, 16)]):
        ask(running, rows, tokens, seed)
    assert session.asked == ["-1", "1", "-1", "1", "2", "-1"]


def test_what_was_answered_is_not_overwritten_by_the_next_request(session: Fake) -> None:
    running = Graphs(ONNXRUNTIME, session, 0)
    feeds: list[dict[str, Ids]] = [
        {"input_ids": np.full((1, 8), value, np.int32), "attention_mask": np.ones((1, 8), np.int32)}
        for value in range(4)
    ]
    found = [running.run(None, feed)[0] for feed in feeds]
    assert [one.tolist() for one in found] == [[[0.0]], [[8.0]], [[16.0]], [[24.0]]]


def test_large_batches_and_shapes_beyond_the_most_are_not_recorded(
    session: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "MOST", 2)
    running = Graphs(ONNXRUNTIME, session, 0)
    for tokens in (8, 16, 24, 8, 16, 24, 24):
        ask(running, 1, tokens)
    assert session.asked == ["-1", "-1", "-1", "1", "2", "-1", "-1"]
    large = Graphs(ONNXRUNTIME, session, 0)
    session.asked.clear()
    for _ in range(3):
        ask(large, 33, graphs.TOKENS // 32)
    assert session.asked == ["-1"] * 3
