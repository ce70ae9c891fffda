"""The benchmark against other tools: all are given the same, asked in turn, and what comes of it is told as it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import peers
import peers_page
import pytest
import tiny
import torch
from transformers import AutoModelForSequenceClassification

from edgelm.bundle import Bundle
from edgelm.profile.table import TIMES
from edgelm.text import Tokenizer
from peer import PeerError, Request, clock, environments, figures
from peer.client import Worker
from peer.sentences import of_length
from peer.table import BASE, COMPRESSED, OURS, PEERS, REFERENCE, TEACHER, Peer

TEXTS = ["turn the light on", "play music"]


class Fake:
    """A peer that takes as long as it is told to, and ends after so many requests."""

    def __init__(self, ns: int, ends: int | None = None) -> None:
        self.ns, self.ends, self.asked = ns, ends, list[int]()

    def ask(self, **message: Any) -> dict[str, Any]:
        if len(self.asked) == self.ends:
            raise PeerError("out of memory")
        self.asked.append(message["time"])
        return {"ns": self.ns + len(self.asked)}


def test_everyone_answers_the_same_requests_and_the_slow_hold_up_nobody() -> None:
    workers = {"fast": Fake(10), "close": Fake(15), "slow": Fake(10**9)}
    samples, errors = clock.timed(workers, range(7, 9), seconds=0.05, least=3)
    assert not errors
    assert workers["fast"].asked == workers["close"].asked
    assert workers["fast"].asked[:5] == [7, 7, 8, 7, 8]  # the first is not counted
    assert samples["fast"][:3] == [12, 13, 14]
    assert samples["slow"] == [10**9 + 2]  # what it took when asked for the second time, since the first may compile
    assert len(samples["fast"]) > 3


def test_a_peer_that_fails_on_the_way_is_told_of_and_the_others_go_on() -> None:
    workers = {"good": Fake(10), "never": Fake(10, ends=0), "later": Fake(10, ends=3)}
    samples, errors = clock.timed(workers, range(1), seconds=0.0, least=5)
    assert samples.keys() == {"good"}
    assert len(samples["good"]) == 5
    assert errors == {"never": "out of memory", "later": "out of memory"}


def test_texts_are_as_long_as_they_are_meant_to_be() -> None:
    words = [f"w{number}" for number in range(200)]
    cost = {word: 1 + number % 3 for number, word in enumerate(words)}
    found = of_length([" ".join(words[:50]), " ".join(words[50:])], 11, 8, cost.__getitem__)
    taken = [text.split() for text in found]
    assert [sum(cost[word] for word in text) + 2 for text in taken] == [11] * 8
    order = [words.index(word) for text in taken for word in text]
    assert order == sorted(set(order))


@pytest.fixture
def requests(tiny_bundle: Path, tmp_path: Path) -> Path:
    tokenizer = Tokenizer(Bundle(tiny_bundle).tokenizer, max_tokens=32, pad_token_id=0)
    request = Request(tuple(TEXTS), *tokenizer.batch(tokenizer.encode(TEXTS)))
    (path := tmp_path / "requests.json").write_text(json.dumps([request.to_json()]), encoding="utf-8")
    return path


@pytest.mark.parametrize(("family", "kind"), [("pytorch", "fp32"), ("ours", "onnxruntime fp32")])
def test_a_worker_answers_as_transformers_do(
    family: str, kind: str, tiny_checkpoint: Path, tiny_bundle: Path, requests: Path, tmp_path: Path
) -> None:
    (tmp_path / "auto").mkdir()
    (tmp_path / "auto" / "model.edgelm").write_bytes(tiny_bundle.read_bytes())
    (folder := tmp_path / "made").mkdir()
    options: dict[str, Any] = {"threads": 1, "log": tmp_path / "log.txt", "paths": (Path(__file__).parent.parent,)}
    python, start = Path(sys.executable), str(tiny_checkpoint)
    with Worker(python, family, kind, str(folder), start, str(requests), **options) as worker:
        assert worker.versions
    with Worker(python, family, kind, str(folder), "1", str(requests), **options) as worker:
        (found,) = worker.ask(answer=[0])["answers"]
        timed, memory = worker.ask(time=0, before=1), worker.ask()
        assert 0 < timed["ns"] < timed["at"] - worker.started
        assert 0 < memory["pss_bytes"] <= memory["rss_bytes"]
    given = Request.of(json.loads(requests.read_bytes())[0])
    module = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint).eval()
    with torch.no_grad():
        expected = module(torch.from_numpy(given.ids).long(), torch.from_numpy(given.mask).long()).logits.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert expected.shape == (2, len(tiny.LABELS))


def test_what_a_peer_says_when_it_fails_is_its_error(requests: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"threads": 1, "log": tmp_path / "log.txt"}
    with pytest.raises(PeerError, match=r"^ModuleNotFoundError: No module named 'peer\.nobody'"):
        Worker(Path(sys.executable), "nobody", "fp32", str(tmp_path), "1", str(requests), **options)


@pytest.mark.slow
def test_an_environment_that_cannot_be_installed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.txt").write_text("edgelm-that-is-nowhere @ file:///nowhere.whl\n", encoding="utf-8")
    monkeypatch.setattr(environments, "_PINS", tmp_path)
    with pytest.raises(PeerError, match="nowhere"):
        environments.python("broken", tmp_path)


def parts(factors: dict[str, float], accuracy: dict[str, float]) -> figures.Parts:
    """As measured: milliseconds of every peer in two cells."""
    machine = {"cpu": "A", "cores": 2, "memory_bytes": 2**34, "isa": ["avx2"], "system": "Linux"}
    cells = [
        {"model": TEACHER, "tokens": 32, "batch": batch, "errors": {"torch.compile": "no compiler"}}
        | {"ns": {name: [round(1e6 * batch * ms)] * 3 for name, ms in factors.items()}}
        for batch in (1, 16)
    ]
    artifacts = [
        {"model": TEACHER, "peer": name, "bytes": 1000, "accuracy": value, "n": 872, "versions": {"x": "1"}}
        for name, value in accuracy.items()
    ]
    made = {"machine": machine, "compressed": "smallest"}
    return {TEACHER: {**made, "rows": cells}, "artifacts": {**made, "rows": artifacts}}


@pytest.mark.parametrize(
    ("ours", "compressed", "kept", "words"),
    [
        (1.02, 0.4, 0.895, ["in 2 of 2 cells**, and ahead of it in 0", "**reached**, 0.50", "2.5", "25.0"]),
        (
            1.10,
            0.6,
            0.880,
            ["in 0 of 2 cells", "10 % behind Optimum fp32", "not reached**, 2.00", "**, 1.7"],
        ),
    ],
)
def test_what_was_aimed_at_is_judged_by_the_figures(
    ours: float, compressed: float, kept: float, words: list[str]
) -> None:
    found = parts(
        {REFERENCE: 10.0, "Optimum fp32": 1.0, OURS: ours, COMPRESSED: compressed},
        {REFERENCE: 0.9, "Optimum fp32": 0.9, OURS: 0.9, COMPRESSED: kept},
    )
    text = " ".join(figures.verdicts(found))
    assert not [one for one in words if one not in text]


def test_instructions_stand_beside_it_and_the_least_are_compared() -> None:
    counts = {"Optimum fp32": 90, "litert-torch int8": 30, "edgelm onnxruntime int8-dynamic": 20}
    counts |= {"edgelm litert fp32": 80, "edgelm compressed, litert int8-dynamic": 5}
    rows = [
        {"model": TEACHER, "peer": name, "counts": [{"core": "cortex-a53", "instructions": 10**6 * count}]}
        for name, count in counts.items()
    ]
    found = parts({REFERENCE: 10.0, OURS: 1.0}, {REFERENCE: 0.9, OURS: 0.9})
    found["arm"] = {"machine": found[TEACHER]["machine"], "rows": [*rows, {"peer": "Olive", "error": "no lab"}]}
    assert f"1.50{TIMES} and 6.00{TIMES} on cortex-a53." in " ".join(figures.verdicts(found))
    page = peers_page.page(found)
    assert "| edgelm compressed, litert int8-dynamic | 5 |" in page
    assert "`no lab`" in page


def test_what_is_known_is_written_before_anything_is_made(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    class Bench(peers.Bench):
        def __init__(self) -> None:
            self.peers = [peer for peer in PEERS if peer.name in (REFERENCE, OURS, COMPRESSED)]
            self.inputs = SimpleNamespace(compressed_name="new")  # type: ignore[assignment]

        def _artifact(self, peer: Peer, model: str) -> figures.Row:
            raise Stopped

    row = {"bytes": 1}
    before = [{"model": BASE, "peer": OURS, "error": "x"}, {"model": TEACHER, "peer": COMPRESSED, **row}]
    kept = [{"model": TEACHER, "peer": OURS, **row}, {"model": BASE, "peer": REFERENCE, **row}]
    rows = Bench().artifacts({"artifacts": {"compressed": "old", "rows": [*before, *kept]}})
    assert [next(rows) for _ in kept] == kept
    with pytest.raises(Stopped):
        next(rows)


def test_who_did_not_run_stands_on_the_page_with_its_error() -> None:
    page = peers_page.page(parts({REFERENCE: 10.0, OURS: 1.0}, {REFERENCE: 0.9, OURS: 0.9}))
    assert "| torch.compile | sst2-teacher | `no compiler` |" in page
    assert "| PyTorch eager fp32 | 10 · 10 |" in page


def test_every_peer_has_a_name_and_an_artifact_of_its_own() -> None:
    assert len({peer.name for peer in PEERS}) == len(PEERS)
    assert len({(peer.family, peer.kind, peer.compressed) for peer in PEERS}) == len(PEERS)
    pins = {path.stem for path in (Path(environments.__file__).parent).glob("*.txt")}
    assert {peer.environment for peer in PEERS} == {"", *pins}
    for pinned in (Path(environments.__file__).parent).glob("*.txt"):
        lines = [line for line in pinned.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        assert all("==" in line for line in lines)
