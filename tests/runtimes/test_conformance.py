"""What every engine must do, whoever wrote it; a new engine is added to `artifacts` and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from edgelm import runtimes
from edgelm.bundle import Bundle, write
from edgelm.errors import BundleDamaged, BundleError, DataError, DeviceUnavailable
from edgelm.runtimes import Ids, Logits, Session

LIMIT = 32
NAMES = ["null", "onnxruntime fp32", "onnxruntime int8-dynamic", "litert fp32", "litert int8-dynamic"]


@pytest.fixture(scope="session")
def artifacts(tiny_bundle: Path) -> dict[str, bytes]:
    bundle = Bundle(tiny_bundle)
    found = {f"{v.engine} {v.precision}": bundle.read(v.file) for v in bundle.manifest.variants}
    return {"null": b"3", **found}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def session(name: str, artifacts: dict[str, bytes]) -> Iterator[Session]:
    opened = runtimes.engine(name.split()[0]).load(artifacts[name], threads=2)
    yield opened
    opened.close()


def batch(lengths: tuple[int, ...], width: int, seed: int = 0) -> tuple[Ids, Ids]:
    """Random tokens, padded on the right with whatever ids come."""
    ids = np.random.default_rng(seed).integers(5, tiny.vocab_size(), (len(lengths), width), np.int32)
    mask = (np.arange(width)[None] < np.array(lengths)[:, None]).astype(np.int32)
    return ids, mask


def transformers_logits(checkpoint: Path, ids: Ids, mask: Ids) -> Logits:
    import torch
    from transformers import DistilBertForSequenceClassification

    model = DistilBertForSequenceClassification.from_pretrained(checkpoint)  # in eval mode
    with torch.no_grad():
        found: Logits = model(torch.from_numpy(ids).long(), torch.from_numpy(mask).long()).logits.numpy()
    return found


def test_every_built_in_engine_is_held_to_this() -> None:
    assert {name.split()[0] for name in NAMES} == set(runtimes.ENGINES)


@pytest.mark.parametrize("engine", sorted(runtimes.ENGINES))
def test_says_whether_it_can_run_here(engine: str) -> None:
    assert runtimes.engine(engine).missing() is None


@pytest.mark.parametrize(("engine", "package"), [("litert", "ai_edge_litert"), ("onnxruntime", "onnxruntime")])
def test_a_missing_package_is_told_with_the_cure(engine: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = runtimes.engine(engine)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else object())
    assert "pip install" in (found.missing() or "")


@pytest.mark.parametrize("shape", [(1, 1), (1, LIMIT), (5, 9)])
def test_gives_float32_logits_for_any_batch_and_length(session: Session, shape: tuple[int, int]) -> None:
    logits = session.run(*batch((shape[1],) * shape[0], shape[1]))
    assert (logits.shape, logits.dtype.name) == ((shape[0], 3), "float32")
    assert np.isfinite(logits).all()


def test_repeats_itself_exactly(session: Session) -> None:
    ids, mask = batch((7, 12, 3), 12)
    np.testing.assert_array_equal(session.run(ids, mask), session.run(ids, mask))


def test_leaves_its_inputs_alone(session: Session) -> None:
    ids, mask = batch((7, 12, 3), 12)
    kept = ids.copy(), mask.copy()
    session.run(ids, mask)
    np.testing.assert_array_equal(ids, kept[0])
    np.testing.assert_array_equal(mask, kept[1])


def test_eight_threads_get_the_same_bits_as_one(session: Session) -> None:
    requests = [batch((1 + index % LIMIT,), 1 + index % LIMIT, seed=index) for index in range(160)]
    alone = [session.run(*request) for request in requests]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda request: session.run(*request), requests))
    np.testing.assert_array_equal(np.concatenate(together), np.concatenate(alone))


def test_closing_while_others_run_ends_them_in_an_answer_or_in_a_clear_error(session: Session) -> None:
    def ask(index: int) -> bool:
        try:
            return session.run(*batch((9,), 9)).shape == (1, 3)
        except DataError as exc:
            return "closed" in str(exc)

    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(ask, index) for index in range(40)]
        session.close()
        assert all(one.result() for one in found)


def test_answers_are_not_overwritten_by_later_ones(session: Session) -> None:
    first = session.run(*batch((5,), 5))
    kept = first.copy()
    session.run(*batch((5,), 5, seed=1))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
def test_fp32_equals_transformers_padded_or_not(
    engine: str, artifacts: dict[str, bytes], tiny_checkpoint: Path
) -> None:
    opened = runtimes.engine(engine).load(artifacts[f"{engine} fp32"], threads=1)
    for lengths, width in (((1,), 1), ((8,), 8), ((9,), 9), ((LIMIT,), LIMIT), ((3, 20, 11, 1), 20)):
        ids, mask = batch(lengths, width)
        expected = transformers_logits(tiny_checkpoint, ids, mask)
        np.testing.assert_allclose(opened.run(ids, mask), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_what_stands_under_the_padding_does_not_matter(name: str, session: Session) -> None:
    ids, mask = batch((4, 10), 10)
    other = np.where(mask, ids, 7).astype(np.int32)
    # with one scale for a whole tensor, as onnxruntime quantizes activations, int8 sees the padded rows too
    near = 0.5 if name == "onnxruntime int8-dynamic" else 1e-5
    np.testing.assert_allclose(session.run(ids, mask), session.run(other, mask), rtol=0, atol=near)


def test_explains_itself_in_plain_values(name: str, session: Session) -> None:
    facts = json.loads(json.dumps(session.explain()))
    assert set(facts) == {"engine", "version", "device", "provider", "threads", "lengths", "nodes"}
    assert (facts["engine"], facts["threads"], facts["device"]) == (name.split()[0], 2, "cpu")


def test_cannot_run_once_it_is_closed(session: Session) -> None:
    session.close()
    with pytest.raises(DataError, match="closed"):
        session.run(*batch((4,), 4))
    session.close()  # twice does no harm


@pytest.mark.parametrize("engine", sorted(runtimes.ENGINES))
@pytest.mark.parametrize("artifact", [b"", b"no model", bytes(4096)])
def test_what_is_not_its_artifact_is_refused_in_one_line(engine: str, artifact: bytes) -> None:
    with pytest.raises(BundleError) as caught:
        runtimes.engine(engine).load(artifact, threads=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("engine", "other"), [("onnxruntime", "litert"), ("litert", "onnxruntime")])
def test_the_other_engines_artifact_is_refused(engine: str, other: str, artifacts: dict[str, bytes]) -> None:
    with pytest.raises(BundleError, match="cannot load the artifact"):
        runtimes.engine(engine).load(artifacts[f"{other} fp32"], threads=1)


def test_litert_takes_the_smallest_signature_that_fits(
    artifacts: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    taken: list[str] = []
    real = Interpreter.get_signature_runner

    def spy(self: Interpreter, key: str) -> Any:
        taken.append(key)
        assert list(self.get_signature_list()) == [key]  # the weights are packed for this one alone
        return real(self, key)

    monkeypatch.setattr(Interpreter, "get_signature_runner", spy)
    opened = runtimes.engine("litert").load(artifacts["litert fp32"], threads=1)
    assert opened.explain()["lengths"] == [8, 16, 32]
    for tokens in (1, 8, 9, 16, 17, 32):
        opened.run(*batch((tokens,), tokens))
    assert taken == ["tokens_8", "tokens_16", "tokens_32"]
    with pytest.raises(DataError, match="33 tokens are more than the longest signature takes"):
        opened.run(*batch((33,), 33))


@pytest.mark.parametrize("name", NAMES[1:])
@pytest.mark.parametrize("deflate", [False, True], ids=["stored", "deflated"])
def test_from_a_bundle_it_computes_what_it_computes_from_the_artifact(
    name: str, deflate: bool, artifacts: dict[str, bytes], tiny_bundle: Path, tmp_path: Path
) -> None:
    whole, path = Bundle(tiny_bundle), tmp_path / "ä b.edgelm"
    write(path, whole.manifest, {entry: whole.read(entry) for entry in list(whole.downloads)[1:]}, deflate=deflate)
    variant = next(v for v in whole.manifest.variants if f"{v.engine} {v.precision}" == name)
    alone = runtimes.engine(variant.engine).load(artifacts[name], threads=1)
    opened = runtimes.load(Bundle(path), variant, threads=1)
    path.unlink()  # while it is open
    for lengths, width in (((LIMIT,), LIMIT), ((1,), 1), ((3, 20, 11, 1), 20), ((9,), 9)):
        request = batch(lengths, width)
        np.testing.assert_array_equal(opened.run(*request), alone.run(*request))
    assert opened.explain() == alone.explain()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what a process has mapped")
def test_onnxruntime_maps_the_weights_where_they_lie_in_the_bundle(tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    variant = next(v for v in bundle.manifest.variants if v.file == "model.fp32.onnx")

    def mapped() -> bool:
        return str(tiny_bundle.resolve()) in Path("/proc/self/maps").read_text(encoding="utf-8")

    whole = runtimes.engine("onnxruntime").load(bundle.read(variant.file), threads=1)
    assert not mapped()
    session = runtimes.load(bundle, variant, threads=1)
    assert mapped()
    session.close()
    whole.close()


@pytest.mark.parametrize("name", NAMES[1:])
@pytest.mark.parametrize("share", [0.001, 0.4, 0.9])
def test_a_variant_that_was_altered_is_told_as_damaged(
    name: str, share: float, tiny_bundle: Path, tmp_path: Path
) -> None:
    whole, path = Bundle(tiny_bundle), tmp_path / "a.edgelm"
    variant = next(v for v in whole.manifest.variants if f"{v.engine} {v.precision}" == name)
    region, raw = whole.region(variant.file), bytearray(tiny_bundle.read_bytes())
    assert region is not None
    raw[region.offset + int(share * region.size)] ^= 0x55
    path.write_bytes(raw)
    with pytest.raises(BundleDamaged, match=variant.file):
        runtimes.load(Bundle(path), variant, threads=1)


@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
def test_the_artifact_stays_as_it_is(engine: str, artifacts: dict[str, bytes]) -> None:
    artifact = artifacts[f"{engine} fp32"]
    kept = bytearray(artifact)
    opened = runtimes.engine(engine).load(artifact, threads=1)
    opened.run(*batch((20,), 20))
    opened.run(*batch((3,), 3))
    assert artifact == kept


def test_an_unknown_engine_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(DeviceUnavailable, match="expected one of litert, null, onnxruntime"):
        runtimes.engine("tensorrt")
