"""Fixtures that more than one room needs."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import bundles
import pytest
import tiny

from edgelm.text import Tokenizer

if TYPE_CHECKING:
    import torch

    from edgelm.checkpoint import Checkpoint


@pytest.fixture(autouse=True, scope="session")
def _one_torch_thread() -> None:
    if importlib.util.find_spec("torch"):  # devices have none
        importlib.import_module("torch").set_num_threads(1)  # sums in another order would make runs differ


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
def tiny_bundle(request: pytest.FixtureRequest) -> Path:
    """The same as a bundle with every format: the one in the folder named by EDGELM_BUNDLES, or made here."""
    if folder := os.environ.get("EDGELM_BUNDLES"):
        return Path(folder) / "tiny.edgelm"
    checkpoint: Path = request.getfixturevalue("tiny_checkpoint")
    return bundles.of_tiny(checkpoint, checkpoint.parent / "tiny.edgelm")


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
    import torch

    from edgelm import data

    def batch(ours: Checkpoint, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        name = "clinc150" if len(ours.model.config.labels) == 150 else "sst2"
        texts = data.read(real_data / name / "dev.jsonl", ours.model.config.labels).texts[:count]
        tokenizer = Tokenizer(ours.tokenizer, max_tokens=128, pad_token_id=0)
        ids, mask = tokenizer.batch(tokenizer.encode(list(texts)))
        return torch.from_numpy(ids), torch.from_numpy(mask)

    return batch
