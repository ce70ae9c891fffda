from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch.nn import functional

from edgelm import compression, recipe
from edgelm.compress.distill import Dev, DistillReport, distill, steps
from edgelm.compress.losses import answers, loss
from edgelm.compress.prune import prune
from edgelm.compress.state import State
from edgelm.errors import CheckpointError, RecipeError
from edgelm.model import Encoder
from edgelm.recipe import Distill, Prune

ROWS = [tiny.ids(1, n, seed=seed)[0].numpy().astype(np.int32) for seed, n in enumerate([5, 9, 12, 7] * 40)]
TEACHER = tiny.encoder(heads=(4, 4, 4), ffn=(48, 48, 48))


def student() -> Encoder:
    return prune(TEACHER, Prune(layers=(0, 2), ffn=16, by="fisher"), ROWS, None)[0]


def divergence(model: Encoder) -> float:
    ids = tiny.ids(64, 10, seed=1234)
    with torch.no_grad():
        theirs, ours = (m(ids, torch.ones_like(ids)).log_softmax(-1) for m in (TEACHER, model))
    return float(functional.kl_div(ours, theirs, reduction="batchmean", log_target=True))


def test_the_student_comes_nearer_to_the_teacher_on_texts_it_has_not_seen() -> None:
    before = student()
    after, report = distill(student(), TEACHER, Distill(epochs=24, lr=3e-3, dropout=0.0), ROWS, ROWS, (0, 2))
    assert divergence(after) < 0.7 * divergence(before)
    assert report.loss_end < report.loss_start


def test_a_student_with_strides_is_compared_in_the_rows_that_it_has() -> None:
    strided = replace(TEACHER.config, strides=(1, 2, 1))
    same = Encoder(strided)
    same.load_state_dict(TEACHER.state_dict())
    config = Distill(hidden=1.0, temperature=1.0)
    truth = answers(TEACHER, ROWS, ROWS, (0, 1, 2), strided.spacing(), config)
    texts = np.flatnonzero([len(row) == 9 for row in ROWS])
    ids = torch.from_numpy(np.stack([ROWS[i] for i in texts])).long()
    with torch.no_grad():
        ours, theirs = ([*m.hidden_states(ids, torch.ones_like(ids))] for m in (same, TEACHER))
        found = loss(same, ids, texts, truth, config, bf16=False)
        logits = [m.head(h[-1], torch.ones_like(ids)).log_softmax(-1) for m, h in ((same, ours), (TEACHER, theirs))]
    assert torch.equal(ours[1], theirs[1])  # up to the stride nothing is lost
    pairs = [(ours[0], theirs[0]), (ours[1], theirs[1]), (ours[2], theirs[2][:, ::2]), (ours[3], theirs[3][:, :1])]
    apart = [((a - b).square().mean(-1) / b.square().mean(-1)).mean() for a, b in pairs]
    divergence = (logits[1].exp() * (logits[1] - logits[0])).sum(-1).mean()
    assert float(found) == pytest.approx(float(divergence + sum(apart) / 4), rel=0.02)  # theirs are kept in bfloat16


def test_the_seed_decides() -> None:
    made = [
        distill(student(), TEACHER, Distill(epochs=1, seed=seed), ROWS, ROWS, (0, 2))[0].state_dict()
        for seed in (1, 1, 2)
    ]
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert any(not torch.equal(made[0][name], made[2][name]) for name in made[0])


def test_it_leaves_evaluation_mode_no_gradients_and_no_dropout() -> None:
    model, _ = distill(student(), TEACHER, Distill(epochs=1), ROWS, ROWS, (0, 2))
    ids = tiny.ids(2, 6)
    assert torch.equal(*(model(ids, torch.ones_like(ids)) for _ in range(2)))
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("trained", [True, False])
def test_the_word_embeddings_stay_where_they_are_unless_they_are_trained(trained: bool) -> None:
    before = student().embeddings.word.weight
    after, _ = distill(student(), TEACHER, Distill(epochs=1, embeddings=trained), ROWS, ROWS, (0, 2))
    assert torch.equal(before, after.embeddings.word.weight) != trained
    assert not torch.equal(student().layers[0].ffn_norm.weight, after.layers[0].ffn_norm.weight)


@pytest.mark.parametrize(("epochs", "expected"), [(1.0, 8), (0.5, 4), (0.01, 1), (2.5, 20)])
def test_progress_counts_every_step_and_no_more(epochs: float, expected: int) -> None:
    config, counted = Distill(epochs=epochs, batch=20), list[int]()
    assert steps(ROWS, config) == expected
    distill(student(), TEACHER, config, ROWS, ROWS, (0, 2), progress=counted.append)
    assert sum(counted) == expected


def test_what_is_called_after_each_step_has_the_last_word_on_the_weights() -> None:
    model, calls = student(), itertools.count(1)

    def after_step() -> None:
        model.get_parameter("head.classifier.bias").data.fill_(next(calls))

    found, _ = distill(model, TEACHER, Distill(epochs=1, batch=20), ROWS, ROWS, (0, 2), after_step=after_step)
    assert (found.get_parameter("head.classifier.bias") == 8).all()


def test_a_loss_that_is_not_a_number_ends_it_and_the_last_good_state_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgelm.compress.state.INTERVAL", 0.0)
    config = Distill(epochs=1, batch=20, lr=1e30, warmup=0.0)
    with pytest.raises(RecipeError, match=r"at step 2 of 8: expected a number; set distill\.lr below 1e\+30"):
        distill(student(), TEACHER, config, ROWS, ROWS, (0, 2), state=State(tmp_path / "state", "job"))
    kept = State(tmp_path / "state", "job").read()
    assert kept is not None
    assert all(torch.equal(tensor, student().state_dict()[name]) for name, tensor in kept["student"].items())


def test_an_original_that_does_not_answer_in_numbers_is_refused() -> None:
    broken = tiny.encoder(heads=(4, 4, 4), ffn=(48, 48, 48))
    with torch.no_grad():
        broken.get_parameter("head.classifier.bias")[0] = float("nan")
    with pytest.raises(CheckpointError, match="NaN"):
        distill(student(), broken, Distill(epochs=1), ROWS, ROWS, (0, 2))


OUT_OF_MEMORY = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import numpy, tiny, torch
from edgelm.compress import distill as module
from edgelm.errors import RecipeError
from edgelm.recipe import Distill

def full(*arguments):
    found = answers(*arguments)
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**27,) * 2)
    return found

answers, module.answers = module.answers, full
torch.set_num_threads(1)
rows = list(tiny.ids(4096, 40).numpy().astype(numpy.int32))
try:
    module.distill(tiny.encoder(), tiny.encoder(), Distill(batch=4096), rows, rows, (0, 1, 2))
except RecipeError as exc:
    print(exc)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory in Linux's way")
def test_a_batch_that_does_not_fit_into_memory_is_told_in_one_line() -> None:
    command = [sys.executable, "-c", OUT_OF_MEMORY, str(Path(tiny.__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(
        "distill: 4096 texts of 40 tokens do not fit into memory: set distill.batch below 4096"
    )
    assert done.stdout.count("\n") == 1


DEV_IDS = [tiny.ids(1, n, seed=7000 + seed) for seed, n in enumerate([6, 8, 11] * 30)]
with torch.no_grad():
    GOLD = np.array([int(TEACHER(ids, torch.ones_like(ids)).argmax()) for ids in DEV_IDS])
DEV = Dev([ids[0].numpy().astype(np.int32) for ids in DEV_IDS], GOLD)


def by_hand(model: Encoder) -> float:
    """Accuracy on the dev texts, one after the other."""
    training = model.training
    model.eval()
    with torch.no_grad():
        right = [
            int(model(ids, torch.ones_like(ids)).argmax()) == gold for ids, gold in zip(DEV_IDS, GOLD, strict=True)
        ]
    model.train(training)
    return float(np.mean(right))


def scored(config: Distill) -> tuple[list[float], Encoder, DistillReport]:
    """The scores after every epoch of 8 steps, by hand, and what distillation made of them."""
    model, scores, done = student(), list[float](), 0

    def look(units: int) -> None:
        nonlocal done
        done += units
        if units and done % 8 == 0:
            scores.append(by_hand(model))

    found, report = distill(model, TEACHER, config, ROWS, ROWS, (0, 2), dev=DEV, progress=look)
    return scores, found, report


@pytest.mark.parametrize("patience", [1, 3, 100])
def test_the_best_weights_on_the_dev_texts_are_kept_and_it_ends_when_they_stay_the_best(patience: int) -> None:
    scores, model, report = scored(Distill(epochs=12, batch=20, lr=1e-2, patience=patience))
    best = int(np.argmax(scores))  # the first of them
    assert report.best_step == 8 * (best + 1)
    assert report.best_accuracy == pytest.approx(scores[best])
    assert by_hand(model) == pytest.approx(scores[best])
    assert report.steps == 8 * len(scores) == min(8 * 12, report.best_step + 8 * patience)


def test_a_student_that_does_not_get_better_ends_it_after_patience_epochs() -> None:
    scores, _, report = scored(Distill(epochs=50, batch=20, lr=1e-12, patience=2))
    assert len(scores) == 3
    assert (report.steps, report.best_step) == (24, 8)


def test_patience_without_labelled_dev_texts_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for name, rows in (("train", [{"text": "play", "label": "music"}]), ("dev", [{"text": "play"}])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train = {"train": str(tmp_path / "train.jsonl")}
    for data in (train, train | {"dev": str(tmp_path / "dev.jsonl")}):
        located = recipe.of(data=data, distill={"patience": 1}).with_model(str(tiny_checkpoint))
        with pytest.raises(RecipeError, match=r"distill\.patience needs data\.dev"):
            compression.compress(located)


class Killed(BaseException):
    pass


def killed_after(count: int) -> Callable[[int], None]:
    """A progress that ends the run after this many calls."""
    calls = 0

    def progress(units: int) -> None:
        nonlocal calls
        calls += 1
        if calls > count:
            raise Killed

    return progress


@pytest.mark.parametrize(
    "config",
    [
        Distill(epochs=2.5, batch=20),
        Distill(epochs=4, batch=20, lr=1e-2, patience=2),
        Distill(epochs=9, batch=20, lr=1e-12, patience=2),
    ],
    ids=["plain", "better", "no-better"],
)
@pytest.mark.parametrize("stops", [(1,), (8,), (20,), (9, 8), (3, 1, 6, 5)], ids=str)
def test_an_interrupted_run_goes_on_to_the_very_same_weights(
    config: Distill, stops: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgelm.compress.state.INTERVAL", 0.0)
    dev = DEV if config.patience else None
    whole, expected = distill(student(), TEACHER, config, ROWS, ROWS, (0, 2), dev=dev)
    for stop in stops:
        state = State(tmp_path / "state", "job")
        with pytest.raises(Killed):
            distill(student(), TEACHER, config, ROWS, ROWS, (0, 2), dev=dev, state=state, progress=killed_after(stop))
        torch.rand(3)  # what happens in between must not matter
    counted = list[int]()
    state = State(tmp_path / "state", "job")
    found, report = distill(
        student(), TEACHER, config, ROWS, ROWS, (0, 2), dev=dev, state=state, progress=counted.append
    )
    assert counted[0] >= sum(stops) - 2 * len(stops) > -2  # it did go on, from one step before at most
    assert sum(counted) == expected.steps
    assert report == expected
    assert all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in whole.state_dict().items())
