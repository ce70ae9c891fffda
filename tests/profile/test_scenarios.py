from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sample

from edgelm.bundle import Bundle
from edgelm.errors import DataError, DeviceUnavailable
from edgelm.manifest import Manifest, Variant
from edgelm.profile import scenarios
from edgelm.profile.inputs import from_histogram, from_texts, token_ids
from edgelm.profile.loadgen import Load, Outcome
from edgelm.profile.subject import Extra
from edgelm.runtimes import Ids
from edgelm.runtimes.place import Place

REQUESTS = [token_ids(length, batch=1, vocab=100) for length in (4, 9, 16)]


class Fake:
    """Stands for a bundle, for its variants and for LoadGen."""

    manifest: Manifest = sample.manifest()

    def __init__(self) -> None:
        self.seen: list[tuple[str, tuple[int, ...]]] = []
        self.loads: list[Load] = []

    def loaded(self, stack: ExitStack, bundle: Any, variant: Variant, *, threads: int, place: Place) -> Extra:
        assert bundle is self

        def run(ids: Ids, mask: Ids) -> None:
            assert ids.shape == mask.shape
            self.seen.append((f"{variant.engine} {variant.precision}", ids.shape))

        return Extra(engine=variant.engine, precision=variant.precision, run=run, provider="fake")

    def generate(self, requests: Sequence[Callable[[], object]], load: Load) -> Outcome:
        self.loads.append(load)
        self.seen.clear()
        for row in (2, 0, 1, 1):
            requests[row]()
        return Outcome(
            rows=(2, 0, 1, 1), at_ns=(0, 10, 20, 30), samples_ns=(5, 6, 7, 970), verdict="VALID", loadgen_ns=9
        )


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake()
    monkeypatch.setattr(scenarios, "loaded", made.loaded)
    return made


def measure(fake: Fake, scenario: str, **options: Any) -> Any:
    return scenarios.profile_scenario(fake, scenario, REQUESTS, generator=fake.generate, **options)  # type: ignore[arg-type]


def test_each_variant_is_measured_alone_with_the_lengths_that_were_drawn(fake: Fake) -> None:
    found = measure(fake, "single-stream", engines=["litert"], threads=3)
    assert [(run.engine, run.precision) for run in found.runs] == [("litert", "fp32"), ("litert", "int8-dynamic")]
    for run in found.runs:
        assert (run.scenario, run.tokens, run.lengths, run.batch, run.threads) == (
            "single-stream",
            0,
            (16, 4, 9, 9),
            1,
            3,
        )
        assert (run.samples_ns, run.at_ns, run.verdict, run.provider) == (
            (5, 6, 7, 970),
            (0, 10, 20, 30),
            "VALID",
            "fake",
        )
        assert run.before.at is not None
        assert run.loadgen_ns == 9
    assert fake.seen == [("litert int8-dynamic", (1, length)) for length in (16, 4, 9, 9)]
    assert {(one.min_seconds, one.min_count) for one in fake.loads} == {(60.0, 1024)}


def test_server_comes_at_the_rate_asked_for_or_at_half_of_what_is_possible(fake: Fake) -> None:
    measure(fake, "server", engines=["litert"], precisions=["fp32"], rate=7.0, bound_ms=20)
    measure(fake, "server", engines=["litert"], precisions=["fp32"])
    measure(fake, "offline", engines=["litert"], precisions=["fp32"])
    asked, half, whole = fake.loads
    assert (asked.rate, asked.bound_ns) == (7.0, 20_000_000)
    assert half.rate > 0
    assert whole.rate > 0


def test_filters_that_nothing_fits_are_refused(fake: Fake) -> None:
    with pytest.raises(DeviceUnavailable):
        measure(fake, "offline", precisions=["int4-weights"])


def test_answers_a_second_are_those_from_the_first_request_to_the_last_answer(fake: Fake) -> None:
    (run,) = measure(fake, "offline", engines=["litert"], precisions=["fp32"]).runs
    assert scenarios.throughput(run) == pytest.approx(4 / 1000e-9)
    assert scenarios.throughput(sample.run("litert", "fp32", 16, (1, 2))) is None


def test_texts_become_requests_of_their_own_length(tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    short, long = from_texts(bundle, ["play", "play music " * 200])
    assert short[0].shape[1] < 8
    assert long[0].shape == (1, bundle.manifest.max_tokens)
    assert short[0].dtype == short[1].dtype == np.int32
    assert short[1].all()


def test_lengths_are_drawn_by_their_weights_and_always_the_same() -> None:
    found = [ids.shape[1] for ids, _ in from_histogram(sample.manifest(), {16: 3, 64: 1})]
    assert found == [ids.shape[1] for ids, _ in from_histogram(sample.manifest(), {16: 3, 64: 1})]
    assert set(found) == {16, 64}
    assert found.count(16) / len(found) == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize("weights", [{}, {0: 1}, {129: 1}, {16: 0}, {16: 2, 32: -1}])
def test_lengths_that_the_bundle_does_not_take_are_refused(weights: dict[int, float]) -> None:
    with pytest.raises(DataError, match="expected lengths of 1 to 128 tokens with weights above 0"):
        from_histogram(sample.manifest(), weights)
