from __future__ import annotations

import html
import re

import msgspec
import numpy as np
import pytest
import sample

pytest.importorskip("matplotlib", reason="needs matplotlib, which is not installed")
pytest.importorskip("jinja2", reason="needs jinja2, which is not installed")

from edgelm.manifest import Manifest, Score
from edgelm.profile import report
from edgelm.profile.report import pareto
from edgelm.profile.report.charts import series
from edgelm.profile.report.pareto import Point

MANIFEST, PROFILE, DOWNLOADS = sample.manifest(), sample.profile(), sample.downloads()
LOOK = series(MANIFEST)[0]


def names(points: tuple[Point, ...]) -> list[tuple[str, str]]:
    return [(one.look.engine, one.look.precision) for one in points]


def scored(metric: str | None, values: tuple[float, ...]) -> Manifest:
    """The sample with these scores, the original's first; or without any."""
    own = [Score(metric=metric, value=value, n=100) if metric else None for value in values]
    variants = tuple(
        msgspec.structs.replace(one, score=score) for one, score in zip(MANIFEST.variants, own[1:], strict=True)
    )
    return msgspec.structs.replace(
        MANIFEST, baseline=msgspec.structs.replace(MANIFEST.baseline, score=own[0]), variants=variants
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_no_other_is_better_than_in_one_and_as_good_in_the_other(seed: int) -> None:
    random = np.random.default_rng(seed)
    pairs = random.integers(0, 6, size=(12, 2)).astype(float)  # with ties in both
    points = [Point(LOOK, cost, cost, cost, better, better) for cost, better in pairs]
    cost, better = pairs[:, :1], pairs[:, 1:]
    beaten = ((cost.T <= cost) & (better.T >= better) & ((cost.T < cost) | (better.T > better))).any(axis=1)
    found = pareto.front(points)
    assert sorted((one.cost, one.better) for one in found) == sorted(map(tuple, pairs[~beaten].tolist()))
    assert [one.cost for one in found] == sorted(one.cost for one in found)


def test_every_variant_and_the_original_have_a_place() -> None:
    variants = [("pytorch", "fp32"), *((one.engine, one.precision) for one in MANIFEST.variants)]
    latency, download = pareto.by_latency(MANIFEST, PROFILE), pareto.by_download(MANIFEST, DOWNLOADS)
    assert names(latency) == names(download) == variants
    assert [one.cost for one in latency] == pytest.approx([25.7, 6.15, 1.97, 5.30, 1.47], rel=0.01)
    assert all(one.low <= one.cost <= one.high for one in latency)
    assert [one.cost for one in download] == [
        MANIFEST.baseline.bytes / 1e6,
        *(DOWNLOADS[one.file] / 1e6 for one in MANIFEST.variants),
    ]
    assert names(pareto.front(latency)) == [("litert", "int8-dynamic"), ("litert", "fp32"), ("pytorch", "fp32")]


def test_without_scores_it_is_agreement_and_of_a_perplexity_less_is_better() -> None:
    alone = scored(None, (0,) * 5)
    assert [one.quality for one in pareto.by_download(alone, DOWNLOADS)] == [1.0, 0.981, 0.981, 0.981, 0.979]
    assert pareto.quality_words(alone) == "agreement with the original"
    masks = scored("perplexity", (300.0, 301.0, 340.0, 301.0, 320.0))
    assert pareto.quality_words(masks) == "perplexity, 100 tokens"
    best = pareto.front(pareto.by_latency(masks, PROFILE))
    assert names(best) == [("litert", "int8-dynamic"), ("litert", "fp32"), ("pytorch", "fp32")]
    worse = scored("perplexity", (300.0, 301.0, 310.0, 301.0, 320.0))
    assert ("onnxruntime", "int8-dynamic") in names(pareto.front(pareto.by_latency(worse, PROFILE)))


def test_the_page_shows_both_and_tells_them_in_words() -> None:
    text = report.render(MANIFEST, PROFILE, DOWNLOADS, title="assistant")
    told = [html.unescape(label) for label in re.findall(r'<figure role="img" aria-label="(.*?)"', text)]
    latency, download = (one for one in told if "Beaten by none" in one)
    assert latency.startswith("Accuracy against median latency. Beaten by none: litert int8-dynamic (1.4")
    assert "ms, 0.893); litert fp32 (5.3" in latency
    assert latency.endswith("onnxruntime fp32 (6.15 ms, 0.896).")
    assert "original, PyTorch (268 MB, 0.899)" in download


def test_a_bundle_that_was_not_measured_has_the_picture_of_its_sizes() -> None:
    text = report.render(MANIFEST, msgspec.structs.replace(PROFILE, runs=()), DOWNLOADS, title="assistant")
    assert "Accuracy against download" in text
    assert "Accuracy against median latency" not in text


@pytest.mark.parametrize("costs", [(2.15, 6.95), (3.0, 3.0), (0.02, 900.0), (1.0, 2.0)])
def test_the_axis_of_the_cost_has_a_mark_at_either_end(costs: tuple[float, float]) -> None:
    low, high = pareto._around(costs)
    assert low < costs[0] <= costs[1] < high
    assert {f"{end:e}"[0] for end in (low, high)} <= {"1", "2", "5"}
    assert costs[0] / low < 3 > high / costs[1]
