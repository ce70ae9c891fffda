from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import get_args

import msgspec
import pytest
import sample
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgelm import devices, roofline
from edgelm.manifest import Device, Figure, Precision, TaskName
from edgelm.model import Encoder, EncoderConfig
from edgelm.profile import detect
from edgelm.roofline import TIMES, Times, ideal_ms, predict, work
from edgelm.runs import Peak

CONFIG = EncoderConfig(
    vocab_size=50,
    dim=32,
    head_dim=8,
    heads=(4, 2, 3),
    ffn=(48, 0, 16),
    max_positions=64,
    labels=("a", "b", "c"),
)
PEAK = Peak(fp32_macs=1e9, int8_macs=4e9, bytes=1e9, threads=2)
FIGURES = Path(__file__).parent.parent / "benchmarks" / "prediction.json"


def device(**changes: float) -> Device:
    """A device with the peaks of ``PEAK``, some of them changed."""
    peak = msgspec.structs.replace(PEAK, **changes)
    return msgspec.structs.replace(devices.load("raspberry-pi-5"), name="board", figures=tuple(detect._measured(peak)))


@pytest.mark.parametrize("tokens", [1, 16, 51])
@pytest.mark.parametrize(
    ("task", "strides"), [*((task, ()) for task in get_args(TaskName)), ("text-classification", (2, 3, 1))]
)
def test_the_products_are_those_that_torch_computes(task: TaskName, strides: tuple[int, ...], tokens: int) -> None:
    config = replace(CONFIG, task=task, strides=strides)
    model, ids = Encoder(config).eval(), torch.zeros(1, tokens, dtype=torch.int32)
    with (
        FlopCounterMode(display=False) as counter,
        torch.no_grad(),
        nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH),
    ):
        model(ids, torch.ones_like(ids))
    macs = sum(one.macs for layer in work(config, "fp32", tokens) for one in layer)
    assert counter.get_total_flops() == 2 * macs  # an addition and a multiplication each


@pytest.mark.parametrize("task", ["text-classification", "token-classification"])
def test_int8_moves_a_quarter_of_the_weights_and_nothing_else_is_less(task: TaskName) -> None:
    config = replace(CONFIG, task=task)
    weights = sum(one.weight.numel() for one in Encoder(config).modules() if isinstance(one, nn.Linear))
    moved = {
        precision: sum(one.bytes for layer in work(config, precision, 16) for one in layer)
        for precision in ("fp32", "int8-dynamic")
    }
    assert moved["fp32"] - moved["int8-dynamic"] == 3 * weights
    kinds = [one.int8 for layer in work(config, "int8-dynamic", 16) for one in layer]
    assert kinds.count(False) == 2 * 3  # of every layer, what mixes the tokens


def test_the_bytes_of_one_product_are_those_of_its_three_matrices() -> None:
    one = replace(CONFIG, heads=(0,), ffn=(48,), task="question-answering")
    (up, down), _ = work(one, "fp32", 5)
    assert (up.macs, up.bytes) == (5 * 32 * 48, 4 * (5 * 32 + 32 * 48 + 5 * 48))
    assert (down.macs, down.bytes) == (up.macs, up.bytes)


def test_arithmetic_and_bytes_take_their_time_one_after_the_other() -> None:
    slow = {field: msgspec.structs.replace(PEAK, **{field: 1.0}) for field in ("fp32_macs", "int8_macs", "bytes")}
    macs = defaultdict[bool, int](int)
    for layer in work(CONFIG, "int8-dynamic", 16):
        for one in layer:
            macs[one.int8] += one.macs
    moved = sum(one.bytes for layer in work(CONFIG, "int8-dynamic", 16) for one in layer)
    assert ideal_ms(CONFIG, "int8-dynamic", 16, slow["int8_macs"]) == pytest.approx(1e3 * macs[True], rel=1e-6)
    assert ideal_ms(CONFIG, "int8-dynamic", 16, slow["bytes"]) == pytest.approx(1e3 * moved, rel=1e-6)
    expected = 1e3 * (macs[True] / 4e9 + macs[False] / 1e9 + moved / 1e9)
    assert ideal_ms(CONFIG, "int8-dynamic", 16, PEAK) == pytest.approx(expected)
    assert ideal_ms(CONFIG, "fp32", 16, slow["int8_macs"]) == ideal_ms(CONFIG, "fp32", 16, PEAK)


def test_a_prediction_is_the_ideal_of_the_device_times_what_was_measured() -> None:
    found = predict(CONFIG, sample.manifest(), device())
    assert (found.device, found.threads, found.missing) == ("board", 4, ())
    keys = [(one.engine, one.precision, one.tokens) for one in found.expected]
    variants = [(variant.engine, variant.precision) for variant in sample.manifest().variants]
    assert keys == [(*variant, tokens) for variant in variants for tokens in roofline.LENGTHS]
    for one in found.expected:
        times = TIMES[one.engine, one.precision]
        assert one.low_ms < one.p50_ms < one.high_ms
        assert one.p50_ms == pytest.approx(times.median * ideal_ms(CONFIG, one.precision, one.tokens, PEAK))
        assert one.high_ms / one.low_ms == pytest.approx(times.most / times.least)
    twice = predict(CONFIG, sample.manifest(), device(fp32_macs=2e9, int8_macs=8e9, bytes=2e9))
    assert [one.p50_ms * 2 for one in twice.expected] == pytest.approx([one.p50_ms for one in found.expected])


def test_what_is_padded_takes_as_long_as_what_it_is_padded_to() -> None:
    variants = tuple(msgspec.structs.replace(one, lengths=(64, 128)) for one in sample.manifest().variants)
    padded = predict(CONFIG, msgspec.structs.replace(sample.manifest(), variants=variants), device()).expected
    assert padded[0].p50_ms == padded[1].p50_ms
    plain = predict(CONFIG, sample.manifest(), device()).expected
    assert padded[0].p50_ms > plain[1].p50_ms
    assert padded[2] == plain[2]


def test_longer_texts_than_the_bundle_takes_are_not_told_of() -> None:
    short = msgspec.structs.replace(sample.manifest(), max_tokens=64)
    assert {one.tokens for one in predict(CONFIG, short, device()).expected} == {16, 32}


@pytest.mark.parametrize("name", devices.names())
def test_a_device_whose_peaks_nobody_measured_has_no_number_and_a_reason(name: str) -> None:
    found = predict(CONFIG, sample.manifest(), devices.load(name))
    assert found.expected == ()
    (reason,) = found.missing
    assert reason.startswith(
        "its profile has no figure of fp32 matrix product, int8 matrix product and memory bandwidth"
    )
    assert "edgelm devices detect --out FILE.toml" in reason


def test_what_is_lacking_is_named_alone() -> None:
    partly = device()
    partly = msgspec.structs.replace(partly, figures=partly.figures[:1] + partly.figures[2:])
    (reason,) = predict(CONFIG, sample.manifest(), partly).missing
    assert reason.startswith("its profile has no figure of int8 matrix product: ")
    published = Figure(name="int8 matrix product", value=3.0, unit="TOPS", source="a leaflet")
    wrong = msgspec.structs.replace(partly, figures=(*partly.figures, published))
    assert predict(CONFIG, sample.manifest(), wrong).expected == ()  # another unit is another figure


def test_a_precision_that_was_not_measured_and_a_model_without_known_layers_have_reasons_too() -> None:
    half: Precision = "fp16"
    variants = (msgspec.structs.replace(sample.manifest().variants[0], precision=half), sample.manifest().variants[1])
    found = predict(CONFIG, msgspec.structs.replace(sample.manifest(), variants=variants), device())
    assert {one.precision for one in found.expected} == {"int8-dynamic"}
    assert found.missing == ("how far onnxruntime fp16 stays from the roofline was not measured",)
    foreign = predict(replace(CONFIG, heads=(), ffn=()), sample.manifest(), device())
    assert (foreign.expected, len(foreign.missing)) == ((), 1)


def test_what_the_ideal_is_multiplied_by_is_what_was_measured_and_committed() -> None:
    result = json.loads(FIGURES.read_bytes())
    peaks = {one["threads"]: msgspec.convert(one, Peak) for one in result["peaks"]}
    shapes = {name: EncoderConfig(**fields) for name, fields in result["shapes"].items()}
    ratios = defaultdict[tuple[str, str], list[float]](list)
    for row in result["rows"]:
        ideal = ideal_ms(shapes[row["shape"]], row["precision"], row["tokens"], peaks[row["threads"]])
        ratios[row["engine"], row["precision"]].append(row["p50_ms"] / ideal)
    assert {key: Times.of(values) for key, values in ratios.items()} == TIMES
    machine, (n,) = result["machine"], {times.n for times in TIMES.values()}
    for words in (machine["cpu"], f"{machine['cores']} cores", machine["arch"], f"{len(shapes)} models", f"these {n}."):
        assert words in roofline.BASIS
