"""Fixtures that more than one room needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
import torch

from edgelm import build, compression, data, recipe
from edgelm.checkpoint import Checkpoint
from edgelm.text import Tokenizer


@pytest.fixture(autouse=True, scope="session")
def _one_torch_thread() -> None:
    torch.set_num_threads(1)  # sums in another order would make runs differ


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests find out about this machine is not remembered for its user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGELM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random DistilBERT, saved by transformers."""
    return tiny.distilbert(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path) -> Path:
    """The same as a bundle with every format and precision."""
    out = tiny_checkpoint.parent / "tiny.edgelm"
    wanted = {"device": "generic-x86_64", "lengths": [8, 16, 32]}
    loose = {"max_abs_diff": 1e3, "agreement": 0.0, "kl": 1e3, "accuracy_loss": 100.0}  # the weights are random
    located = recipe.of(export=wanted, gates={"int8-dynamic": loose}).with_model(str(tiny_checkpoint))
    build.export(compression.compress(located), located, out)
    return out


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real data sets; the test is skipped, and says so, where it is not given."""
    folder = os.environ.get("EDGELM_DATA")
    if not folder:
        pytest.skip("EDGELM_DATA is not set: expected the folder with the real data sets")
    return Path(folder)


@pytest.fixture(scope="session")
def teachers(real_data: Path) -> Path:
    """The folder with the fine-tuned teachers, beside the data."""
    folder = real_data.parent / "models"
    if not folder.is_dir():
        pytest.skip(f"there are no teachers in {folder}")
    return folder


@pytest.fixture(scope="session")
def dev_texts(real_data: Path) -> Callable[[Checkpoint, int], tuple[torch.Tensor, torch.Tensor]]:
    """(input_ids, attention_mask) of a teacher's first dev texts, padded."""

    def batch(ours: Checkpoint, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        name = "clinc150" if len(ours.model.config.labels) == 150 else "sst2"
        texts = data.read(real_data / name / "dev.jsonl", ours.model.config.labels).texts[:count]
        tokenizer = Tokenizer(ours.tokenizer, max_tokens=128, pad_token_id=0)
        ids, mask = tokenizer.batch(tokenizer.encode(list(texts)))
        return torch.from_numpy(ids), torch.from_numpy(mask)

    return batch
