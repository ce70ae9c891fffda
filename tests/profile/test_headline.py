from __future__ import annotations

import msgspec
import sample

from edgelm.manifest import Score
from edgelm.profile import headline
from edgelm.runs import Profile

MANIFEST, PROFILE, DOWNLOADS = sample.manifest(), sample.profile(), sample.downloads()


def without(*engines: str) -> Profile:
    return msgspec.structs.replace(PROFILE, runs=tuple(run for run in PROFILE.runs if run.engine not in engines))


def test_the_fastest_variant_is_never_the_original() -> None:
    found = headline.fastest(MANIFEST, PROFILE)
    assert (found.engine, found.precision) == ("litert", "int8-dynamic")
    found = headline.fastest(MANIFEST, without("litert"))
    assert (found.engine, found.precision) == ("onnxruntime", "int8-dynamic")


def test_without_any_run_the_smallest_stands_for_the_bundle() -> None:
    nothing = without("litert", "onnxruntime", "pytorch")
    assert headline.fastest(MANIFEST, nothing).bytes == min(variant.bytes for variant in MANIFEST.variants)
    assert [card.name for card in headline.cards(MANIFEST, nothing, DOWNLOADS)] == [
        "Download",
        "Accuracy",
        "Same label",
    ]


def test_cards_compare_with_the_original() -> None:
    found = {card.name: (card.value, card.beside) for card in headline.cards(MANIFEST, PROFILE, DOWNLOADS)}
    assert list(found) == ["Median latency", "Download", "Accuracy", "Same label", "Peak memory"]
    download = ("16.0 MB", "16.7× smaller than 268 MB; 17.8 MB on disk")  # noqa: RUF001 - a factor is written so
    assert found["Download"] == download
    assert found["Accuracy"] == ("0.893", "0.6 points below the original's 0.899")
    assert found["Same label"][0] == "97.9 %"
    assert found["Peak memory"] == ("96.0 MB", "7.5× less than 716 MB")  # noqa: RUF001 - a factor is written so
    assert found["Median latency"][1].endswith(" ms")


def test_without_the_original_there_is_nothing_to_compare_latency_and_memory_with() -> None:
    found = {card.name: card.beside for card in headline.cards(MANIFEST, without("pytorch"), DOWNLOADS)}
    assert found["Median latency"] == "32 tokens"
    assert found["Peak memory"] == "a fresh process, at its peak"


def test_a_better_and_an_equal_score_are_said_to_be_so() -> None:
    for value, expected in (
        (0.899, "the same as the original's 0.899"),
        (0.909, "1.0 points above the original's 0.899"),
    ):
        score = Score(metric="accuracy", value=value, n=872)
        variants = (msgspec.structs.replace(MANIFEST.variants[3], score=score),)
        found = headline.cards(msgspec.structs.replace(MANIFEST, variants=variants), PROFILE, DOWNLOADS)
        assert next(card.beside for card in found if card.name == "Accuracy") == expected
