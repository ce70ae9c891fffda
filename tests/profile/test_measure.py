from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
import sample

from edgelm import runtimes
from edgelm.devices.machine import cores
from edgelm.errors import DataError, DeviceUnavailable
from edgelm.manifest import Manifest
from edgelm.profile import measure, memory, subject
from edgelm.runs import Fresh
from edgelm.runtimes import Ids
from edgelm.runtimes.place import Place


class Session:
    def __init__(self, artifact: bytes, threads: int) -> None:
        self.artifact, self.threads, self.closed = artifact, threads, False
        self.seen: list[tuple[Ids, Ids]] = []

    def run(self, input_ids: Ids, attention_mask: Ids) -> None:
        assert not self.closed
        self.seen.append((input_ids, attention_mask))

    def explain(self) -> dict[str, str]:
        return {"provider": "nothing at all"}

    def close(self) -> None:
        self.closed = True


class Engine:
    """Both engines: they note what they were given."""

    DEVICES = ("cpu",)

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.lacking: dict[str, str] = {}
        self.name = ""

    def __call__(self, name: str) -> Engine:
        self.name = name
        return self

    def missing(self, device: str = "cpu") -> str | None:
        assert device in self.DEVICES
        return self.lacking.get(self.name)

    def load(self, artifact: bytes, *, threads: int, place: Place) -> Session:
        self.sessions.append(Session(artifact, threads))
        return self.sessions[-1]


class Bundle:
    manifest: Manifest = sample.manifest()

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, file: str) -> bytes:
        return file.encode()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine()
    monkeypatch.setattr(measure, "Bundle", Bundle)
    monkeypatch.setattr(runtimes, "engine", made)
    monkeypatch.setattr(memory, "fresh", fresh)
    return made


def fresh(path: Path, file: str, *, tokens: int, threads: int, batch: int, device: str) -> Fresh:
    assert (path, device) == (Path("some.edgelm"), "cpu")
    return Fresh(peak_bytes=len(file) * 1000 + tokens)


def test_every_variant_is_measured_at_every_length(engine: Engine) -> None:
    found = measure.profile_bundle("some.edgelm", tokens=(32, 16), batch=3, seconds=0, min_count=4, warmup=2)
    keys = [(run.tokens, run.engine, run.precision) for run in found.runs]
    variants = [(variant.engine, variant.precision) for variant in Bundle.manifest.variants]
    assert keys == [(tokens, *variant) for tokens in (16, 32) for variant in variants]
    assert {len(run.samples_ns) for run in found.runs} == {4}
    assert {(run.batch, run.threads, run.warmup) for run in found.runs} == {(3, cores(), 2)}
    assert {run.provider for run in found.runs} == {"nothing at all"}
    assert all(
        run.before.clock_s and run.after.clock_s and run.before.clock_s <= run.after.clock_s for run in found.runs
    )
    assert found.machine.cores == cores()
    for session in engine.sessions:
        each = 2 + 4 * (2 if cores() > 1 else 1)  # several threads rest, and warm up again, before each sample
        assert [ids.shape for ids, _ in session.seen] == [(3, 16)] * each + [(3, 32)] * each
        assert all(ids.max() < Bundle.manifest.model.vocab for ids, _ in session.seen)
        assert all(np.array_equal(mask, np.ones_like(ids)) for ids, mask in session.seen)
        assert session.closed


def test_each_variant_is_loaded_from_its_own_file_with_the_threads_asked_for(engine: Engine) -> None:
    measure.profile_bundle("some.edgelm", tokens=(16,), threads=7, seconds=0, min_count=1)
    assert [session.artifact.decode() for session in engine.sessions] == [v.file for v in Bundle.manifest.variants]
    assert {session.threads for session in engine.sessions} == {7}


def test_memory_is_that_of_the_variant_at_the_length(engine: Engine) -> None:
    found = measure.profile_bundle("some.edgelm", tokens=(16, 32), engines=["litert"], seconds=0, min_count=1)
    files: dict[str, str] = {v.precision: v.file for v in Bundle.manifest.variants if v.engine == "litert"}
    assert [run.peak_rss_bytes for run in found.runs] == [
        len(files[run.precision]) * 1000 + run.tokens for run in found.runs
    ]


def test_the_original_is_measured_beside_the_variants(engine: Engine) -> None:
    seen = list[tuple[int, ...]]()
    original = subject.Extra(
        engine="pytorch",
        precision="fp32",
        run=lambda ids, mask: seen.append(ids.shape),
        fresh=lambda tokens: Fresh(peak_bytes=99),
    )
    counts = {"seconds": 0.0, "min_count": 3, "warmup": 1}
    found = measure.profile_bundle("some.edgelm", tokens=(16,), threads=1, baseline=[original], **counts)  # type: ignore[arg-type]
    assert (found.runs[0].engine, found.runs[0].peak_rss_bytes, len(found.runs[0].samples_ns)) == ("pytorch", 99, 3)
    assert seen == [(1, 16)] * 4
    assert len(found.runs) == 5


def test_sessions_are_closed_when_a_request_fails(engine: Engine) -> None:
    def fail(ids: Ids, mask: Ids) -> None:
        raise RuntimeError("no")

    broken = subject.Extra(engine="pytorch", precision="fp32", run=fail)
    with pytest.raises(RuntimeError):
        measure.profile_bundle("some.edgelm", tokens=(16,), seconds=0, min_count=1, baseline=[broken])
    assert len(engine.sessions) == 4
    assert all(session.closed for session in engine.sessions)


def test_lengths_beyond_the_bundle_are_left_out_and_none_at_all_is_an_error(engine: Engine) -> None:
    found = measure.profile_bundle("some.edgelm", tokens=(16, 512), seconds=0, min_count=1)
    assert {run.tokens for run in found.runs} == {16}
    with pytest.raises(DataError, match="takes 1 to 128 tokens, asked for 512"):
        measure.profile_bundle("some.edgelm", tokens=(512,), seconds=0, min_count=1)


def test_progress_reaches_its_totals(engine: Engine) -> None:
    totals, done = dict[str, int](), dict[str, int]()

    @contextmanager
    def progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
        totals[name], done[name] = total, 0

        def advance(units: int) -> None:
            done[name] += units

        yield advance

    measure.profile_bundle("some.edgelm", tokens=(16, 32), seconds=0, min_count=7, progress=progress)
    assert done == totals == {"measure latency": 200, "measure memory": 8}


@pytest.mark.parametrize(
    ("engines", "precisions", "expected"),
    [
        (None, None, 4),
        (["litert"], None, 2),
        (None, ["int8-dynamic"], 2),
        (["onnxruntime"], ["fp32"], 1),
    ],
)
def test_filters_narrow_what_is_measured(
    engine: Engine, engines: list[str] | None, precisions: list[str] | None, expected: int
) -> None:
    found = subject.choose(Bundle.manifest, engines, precisions)
    assert len(found) == expected
    assert all(engines is None or variant.engine in engines for variant in found)
    assert all(precisions is None or variant.precision in precisions for variant in found)


def test_an_engine_that_is_missing_is_passed_over_unless_it_was_asked_for(engine: Engine) -> None:
    engine.lacking = {"litert": "litert is not installed: pip install 'edgelm[litert]'"}
    assert {variant.engine for variant in subject.choose(Bundle.manifest)} == {"onnxruntime"}
    with pytest.raises(DeviceUnavailable, match="pip install"):
        subject.choose(Bundle.manifest, ["litert"])


def test_without_any_engine_every_cure_is_given(engine: Engine) -> None:
    engine.lacking = {"litert": "cure one", "onnxruntime": "cure two"}
    with pytest.raises(DeviceUnavailable, match="cure one; cure two"):
        subject.choose(Bundle.manifest)


def test_a_filter_that_nothing_fits_lists_what_there_is(engine: Engine) -> None:
    with pytest.raises(
        DeviceUnavailable, match=r"no variant int4-weights; it has onnxruntime fp32, .*litert int8-dynamic"
    ):
        subject.choose(Bundle.manifest, None, ["int4-weights"])


def test_profiles_of_one_machine_can_be_merged() -> None:
    first, second = sample.profile(), sample.loaded(sample.profile(), 3.0)
    found = measure.merge(first, second)
    assert found.runs == first.runs + second.runs
    assert (found.load_start, found.load_end) == (1.42, 0.61)


def test_profiles_of_different_machines_refuse_to_be_merged() -> None:
    other = msgspec.structs.replace(sample.machine(), cpu="Cortex-A76")
    with pytest.raises(DataError, match="Cortex-A76"):
        measure.merge(sample.profile(), msgspec.structs.replace(sample.profile(), machine=other))


def test_what_measuring_takes_is_measured_with_an_engine_that_does_nothing_and_taken_from_no_sample(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()

    def samples(
        requests: dict[subject.Extra, Callable[[], object]], **how: object
    ) -> dict[subject.Extra, tuple[int, ...]]:
        asked.extend(one.engine for one in requests)
        return {one: (300, 100, 200) if one.engine == "null" else (9000, 7000, 8000) for one in requests}

    monkeypatch.setattr(measure, "interleaved", samples)
    found = measure.profile_bundle("some.edgelm", tokens=(16,), engines=["litert"])
    assert asked == ["litert", "litert", "null"]  # in turn with the others
    assert [(run.engine, run.harness_ns, run.samples_ns) for run in found.runs] == [
        ("litert", 200, (9000, 7000, 8000))
    ] * 2
