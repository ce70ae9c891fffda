from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

import edgelm
from edgelm import bundle
from edgelm.bundle import Bundle
from edgelm.errors import BundleError, DataError, DeviceUnavailable

TEXTS = ["turn the light on", "play music", "what is the time in paris", ""]


@pytest.fixture(scope="module", params=["onnxruntime", "litert"])
def model(request: pytest.FixtureRequest, tiny_bundle: Path) -> Iterator[edgelm.Model]:
    with edgelm.load(tiny_bundle, engine=request.param, precision="fp32", threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def pipeline(tiny_checkpoint: Path) -> Any:
    import torch
    from transformers import DistilBertForSequenceClassification, PreTrainedTokenizerFast, TextClassificationPipeline

    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tiny_tokenizer(), pad_token="[PAD]", model_input_names=["input_ids", "attention_mask"]
    )
    original = DistilBertForSequenceClassification.from_pretrained(tiny_checkpoint)
    return TextClassificationPipeline(  # type: ignore[no-untyped-call]
        model=original, tokenizer=tokenizer, device=torch.device("cpu")
    )


def tiny_tokenizer() -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(tiny.tokenizer_json().decode())


def same(found: Any, expected: Any) -> None:
    """The same nesting and labels, scores within 1e-4."""
    assert type(found) is type(expected)
    if isinstance(found, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    else:
        assert found["label"] == expected["label"]
        assert found["score"] == pytest.approx(expected["score"], abs=1e-4)


@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
@pytest.mark.parametrize("precision", ["fp32", "int8-dynamic"])
def test_a_deflated_bundle_gives_the_very_same_logits(
    engine: str, precision: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    stored, deflated = Bundle(tiny_bundle), tmp_path / "deflated.edgelm"
    entries = {name: stored.read(name) for name in stored.downloads if name != "manifest.json"}
    bundle.write(deflated, stored.manifest, entries, deflate=True)
    assert deflated.stat().st_size < 0.95 * tiny_bundle.stat().st_size
    plain, packed = (
        edgelm.load(path, engine=engine, precision=precision, threads=1).logits(TEXTS)
        for path in (tiny_bundle, deflated)
    )
    assert np.array_equal(plain, packed)


@pytest.mark.parametrize("texts", [TEXTS[0], TEXTS[:1], TEXTS])
@pytest.mark.parametrize("options", [{}, {"top_k": 1}, {"top_k": 2}, {"top_k": None}])
def test_answers_as_transformers_pipeline_does(
    model: edgelm.Model, pipeline: Any, texts: Any, options: dict[str, Any]
) -> None:
    same(model(texts, **options), pipeline(texts, **options))


def test_a_text_has_the_same_answer_alone_and_among_others(tiny_bundle: Path) -> None:
    for variant in Bundle(tiny_bundle).manifest.variants:
        with edgelm.load(tiny_bundle, engine=variant.engine, precision=variant.precision) as loaded:
            together = loaded.logits(TEXTS)
            alone = np.concatenate([loaded.logits([text]) for text in TEXTS])
        np.testing.assert_array_equal(together, alone)


def test_texts_longer_than_the_limit_are_cut_and_it_is_said_once(
    tiny_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with edgelm.load(tiny_bundle, engine="onnxruntime", precision="fp32") as loaded:
        for _ in range(2):
            assert np.isfinite(loaded.logits(["play music " * 200])).all()
    assert [record.message for record in caplog.records] == [
        "a text was cut to 32 tokens, the limit of this model; said once"
    ]


def test_a_megabyte_of_text_is_answered_as_its_beginning_is(model: edgelm.Model) -> None:
    assert model("play music " * 100_000) == model("play music " * 50)


@pytest.mark.parametrize("text", ["\x00\x1b[31m\x7f", "play\x00music\u200b", "\ufffe\U0010ffff", "\n\t\r", "🎵" * 500])
def test_any_characters_are_answered_as_transformers_pipeline_does(
    text: str, model: edgelm.Model, pipeline: Any
) -> None:
    same(model(text), pipeline(text, truncation=True, max_length=32))


def test_no_text_is_no_answer(model: edgelm.Model) -> None:
    assert model([]) == []
    assert model.logits([]).shape == (0, 3)


@pytest.mark.parametrize("texts", [None, 7, b"bytes", ["ok", 7], ["\ud800"]])
def test_what_is_not_text_is_refused(model: edgelm.Model, texts: Any) -> None:
    with pytest.raises(DataError) as caught:
        model(texts)
    assert "\n" not in str(caught.value)


def test_explains_what_runs(tiny_bundle: Path) -> None:
    with edgelm.load(tiny_bundle, engine="litert", precision="int8-dynamic", threads=1) as loaded:
        facts = loaded.explain()
        assert loaded.labels == tiny.LABELS
    expected = {
        "engine": "litert",
        "provider": "XNNPACK",
        "precision": "int8-dynamic",
        "threads": 1,
        "lengths": [8, 16, 32],
        "max_tokens": 32,
        "chosen": "the only one",
    }
    assert expected.items() <= facts.items()


def test_takes_the_fastest_and_says_so(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELM_CACHE", str(tmp_path))
    for earlier in (False, True):
        with edgelm.load(tiny_bundle) as loaded:
            facts = loaded.explain()
        medians = facts["fastest_ms"]
        assert len(medians) == 4
        assert f"{facts['engine']} {facts['precision']}" == min(medians, key=medians.__getitem__)
        assert facts["measured_earlier"] is earlier


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"device": "cuda"}, DeviceUnavailable, "cuda"),
        ({"engine": "tensorrt"}, DeviceUnavailable, "no variant tensorrt"),
        ({"precision": "int4"}, DeviceUnavailable, "no variant int4"),
        ({"threads": 0}, DataError, "at least 1"),
    ],
)
def test_what_would_not_really_be_used_is_refused(
    tiny_bundle: Path, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        edgelm.load(tiny_bundle, **options)


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such file"):
        edgelm.load(tmp_path / "none.edgelm")
