"""What every peer is given: checkpoints, and requests of real sentences, as files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgelm.bundle import staged
from edgelm.data import read, sha256
from edgelm.text import Tokenizer
from peer import Request, checkpoints
from peer.sentences import batched, cells
from peer.table import BASE, TEACHER

__all__ = ["Inputs"]

_ROOT = Path(__file__).parent.parent.parent
_RECIPE = _ROOT / "examples" / "sst2" / "post-training.toml"
_LABELS = ("negative", "positive")
_CALIBRATION = 300  # NNCF's own default
_FIRST = 40
"""A text of dev for the first answer of a process; of 24 tokens."""


class Inputs:
    """Made once; what lies in the folder is used again.

    Attributes:
        work: the folder.
        checkpoints: of each model, in fp32.
        compressed: a checkpoint or a bundle.
        compressed_name: of the recipe or of what was given, and the beginning of its hash.
        cells: of the table of latencies.
        requests: a file with those of all cells, in their order.
        dev: a file with each text of SST-2's dev set.
        gold: the class of each of them.
        first: a file with one request.
        calibration: a file with texts of the train set.
    """

    def __init__(self, data: Path, models: Path, compressed: Path | None, work: Path) -> None:
        """Make them; minutes, when there is no compressed model.

        Args:
            data: folder with ``sst2/train.jsonl`` and ``sst2/dev.jsonl``.
            models: folder with ``sst2-teacher``.
            compressed: what was made of that teacher; one is made by a quick recipe when not given.
            work: folder to keep everything in.
        """
        work.mkdir(parents=True, exist_ok=True)
        os.environ["EDGELM_CACHE"] = str(work / "cache")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(work / "inductor")
        self.work = work
        teacher, train = (models / TEACHER).resolve(), (data / "sst2" / "train.jsonl").resolve()
        self.checkpoints = {
            BASE: checkpoints.base(teacher, work / "checkpoint-base"),
            TEACHER: checkpoints.plain(teacher, work / "checkpoint-teacher"),
        }
        made = compressed or checkpoints.compressed(teacher, train, _RECIPE, work / "checkpoint-compressed")
        self.compressed = made.resolve()
        content = sha256(made / "model.safetensors" if made.is_dir() else made)
        self.compressed_name = f"{(compressed or _RECIPE).stem}-{content[:8]}"
        tokenizer = Tokenizer((teacher / "tokenizer.json").read_bytes(), max_tokens=512, pad_token_id=0)
        dev, texts = read(data / "sst2" / "dev.jsonl", _LABELS), read(train, _LABELS).texts
        assert dev.gold is not None
        self.gold, self.cells = np.array(dev.gold), tuple(cells(dev.texts, tokenizer))
        alone = [batched([text], tokenizer) for text in dev.texts]
        self.dev, self.first = _written(work / "dev.json", alone), _written(work / "first.json", [alone[_FIRST]])
        self.requests = _written(work / "requests.json", [one for cell in self.cells for one in cell.requests])
        some = [batched([text], tokenizer) for text in texts[:: len(texts) // _CALIBRATION][:_CALIBRATION]]
        self.calibration = _written(work / "calibration.json", some)


def _written(path: Path, requests: Sequence[Request]) -> Path:
    with staged(path) as staging:
        staging.write_text(json.dumps([request.to_json() for request in requests]), encoding="utf-8")
    return path
