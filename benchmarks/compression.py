"""What compression keeps: every recipe of examples/sst2 and examples/clinc150, from scratch, beside its teacher.

``make bench-compress DATA=FOLDER MODELS=FOLDER`` goes through three stages, and a run that was ended goes on where it
was: it compresses into build/compression, as many recipes side by side as there are cores, each with one thread; it
exports, scores, and counts ARM instructions; it measures latencies, one artifact after the other, while nothing else
runs, and writes benchmarks/compression.json. ``--only sst2/smallest`` does one recipe again, ``--stage`` one stage.
benchmarks/pareto.py makes the document and the picture of it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
import zlib
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np

from edgelm import build, checkpoint, compression, data, recipe, tasks
from edgelm.bundle import Bundle, staged
from edgelm.check import Reference
from edgelm.console import progress
from edgelm.devices.machine import cores, machine
from edgelm.errors import GateFailed
from edgelm.manifest import Variant
from edgelm.model import linear_macs, parameters
from edgelm.profile.inputs import token_ids
from edgelm.profile.timing import interleaved
from edgelm.recipe import Located
from edgelm.runtimes import Session, engine
from edgelm.schema import to_dict

ROOT = Path(__file__).parent.parent
OUT = ROOT / "benchmarks" / "compression.json"
TASKS = ("clinc150", "sst2")
UNPRUNED = "unpruned"
STAGES = ("compress", "export", "measure")
ARM = ("cortex-a53", "cortex-a76")  # without and with dot-product instructions
SCHEMA = "edgelm.bench-compress/1"
SENTENCES = {("sst2", "fastest"): "imdb"}
"""Recipes that are distilled on the sentences of another task's training texts as well."""
WORDS = range(6, 41)
"""Of a sentence that is taken."""
TOKENS, THREADS = 32, 1


@dataclass(frozen=True)
class Task:
    """A teacher and its data.

    Attributes:
        name: of the task.
        teacher: folder.
        train: texts with labels.
        dev: others.
        work: folder for what is made of it.
        sentences: further texts without labels, by the recipe that takes them.
    """

    name: str
    teacher: Path
    train: Path
    dev: Path
    work: Path
    sentences: dict[str, Path]

    def settings(self, name: str) -> list[str]:
        """What a recipe of examples/ does not say."""
        data = [f'data.train="{self.train}"', f'data.dev="{self.dev}"']
        if name in self.sentences:
            data.append(f'data.unlabelled=["{self.sentences[name]}"]')
        return [*data, 'export.device="generic-x86_64"', 'export.precisions=["int8-dynamic"]']

    def recipe(self, name: str) -> Path:
        """The file of a recipe."""
        return ROOT / "examples" / self.name / f"{name}.toml"


def main() -> None:
    """Compress what is asked for, or what is not yet there; then measure everything that is."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True, help="folder with sst2/, clinc150/ and imdb/")
    arguments.add_argument("--models", type=Path, required=True, help="folder with the teachers")
    arguments.add_argument("--work", type=Path, default=ROOT / "build" / "compression", help="for what is compressed")
    arguments.add_argument("--only", nargs="*", help="TASK/RECIPE: do these alone, and again")
    arguments.add_argument("--jobs", type=int, default=cores(), help="recipes side by side, each with one thread")
    arguments.add_argument("--lab", type=Path, help="count ARM instructions in this folder of benchmarks/arm/setup")
    arguments.add_argument("--stage", choices=STAGES, nargs="*", default=STAGES, help="do these alone")
    given = arguments.parse_args()
    found = [_task(name, given.data.resolve(), given.models.resolve(), given.work.resolve()) for name in TASKS]
    recipes = [(task, path.stem) for task in found for path in sorted((ROOT / "examples" / task.name).glob("*.toml"))]
    again = bool(given.only)
    wanted = [(task, name) for task, name in recipes if not again or f"{task.name}/{name}" in given.only]
    if "compress" in given.stage:
        with ThreadPool(given.jobs) as pool:
            pool.starmap(partial(compressed, again=again), wanted, chunksize=1)
    if "export" in given.stage:
        for task in {task.name: task for task, _ in wanted}.values():
            exported(task, UNPRUNED, given.lab, again=False)  # what the others are measured beside
        for task, name in wanted:
            exported(task, name, given.lab, again=again)
    wanted += [] if again else [(task, UNPRUNED) for task in found]
    if "measure" in given.stage:
        kept: dict[str, Any] = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
        rows = {(row["task"], row["recipe"]): row for row in kept.get("rows", ())}
        for task, name in wanted:
            rows[task.name, name] = measured(task, name)
            _write(OUT, {"schema": SCHEMA, "tokens": TOKENS, "threads": THREADS, "rows": [*rows.values()]})


def compressed(task: Task, name: str, *, again: bool) -> None:
    """Compress by one recipe with the command that anyone has, unless that was done; tell how long it took."""
    out = task.work / name
    if out.exists() and not again:
        return
    settings = [part for one in task.settings(name) for part in ("--set", one)]
    command = ["compress", str(task.teacher), "--recipe", str(task.recipe(name)), "--out", str(out), *settings]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0"}
    started = time.monotonic()
    print(f"{task.name}/{name}: compressing", flush=True)
    with out.with_suffix(".log").open("w") as log:
        command += ["--json", str(out.with_suffix(".json"))]
        done = subprocess.run(
            [sys.executable, "-m", "edgelm", *command], env=environment, stdout=log, stderr=log, check=False
        )
    if done.returncode != 0:
        sys.exit(f"{task.name}/{name}: ended with {done.returncode}; see {out.with_suffix('.log')}")
    seconds = time.monotonic() - started
    out.with_suffix(".seconds").write_text(f"{seconds:.0f}")
    print(f"{task.name}/{name}: {seconds:.0f} s", flush=True)


def exported(task: Task, name: str, lab: Path | None, *, again: bool) -> None:
    """Export what was compressed, unless that was done: its row, but for the latencies."""
    path, folder = task.work / f"{name}.row.json", task.teacher if name == UNPRUNED else task.work / name
    if path.exists() and not again:
        return
    if not folder.exists():
        sys.exit(f"{task.name}/{name}: expected what --stage compress leaves in {folder}, found nothing: run it first")
    settings = task.settings(name)
    located = recipe.of(settings) if name == UNPRUNED else recipe.read(task.recipe(name), settings)
    small = compression.compress(recipe.of(task.settings(UNPRUNED)).with_model(str(folder)))
    original = checkpoint.read(task.teacher)
    out = task.work / f"{name}.edgelm"
    variants, refused = _packed(replace(small, original=original), located, out)
    texts = data.read(task.dev, original.model.config.labels)
    before = Reference(original.model, original.tokenizer, small.max_tokens, texts)
    after = Reference(small.model, small.tokenizer, small.max_tokens, texts)
    assert texts.gold is not None
    counts = _instructions(out, lab) if variants and lab else {}
    row = {
        "task": task.name,
        "recipe": name,
        "settings": to_dict(located.recipe) | {"model": task.teacher.name, "data": _hashes(task, name)},
        "seconds": None if name == UNPRUNED else int((task.work / f"{name}.seconds").read_text()),
        "macs": round(linear_macs(original.model.config) / linear_macs(small.model.config), 3),
        "parameters": parameters(small.model),
        "heads": small.model.config.heads,
        "ffn": small.model.config.ffn,
        "strides": small.model.config.strides,
        "vocab": small.model.config.vocab_size,
        "new_unknown": _unknown(small.tokenizer, after) - _unknown(original.tokenizer, before),
        "teacher": tasks.accuracy(before.logits, texts.gold).value,
        "accuracy": tasks.accuracy(after.logits, texts.gold).value,
        **_loss(before, after),
        "fp32_checkpoint_bytes": 4 * parameters(original.model),
        "variants": [
            {
                "engine": variant.engine,
                "precision": variant.precision,
                "file": variant.file,
                "bytes": variant.bytes,
                "deflated_bytes": len(zlib.compress(Bundle(out).read(variant.file), 9)),
                "accuracy": variant.score.value if variant.score else None,
                "arm_instructions": counts.get(variant.engine),
            }
            for variant in variants
        ],
        "refused": refused,
    }
    _write(path, row)


def measured(task: Task, name: str) -> dict[str, Any]:
    """The row with the latencies of the artifacts, each in turns with its unpruned like."""
    row: dict[str, Any] = json.loads((task.work / f"{name}.row.json").read_text(encoding="utf-8"))
    for variant in row["variants"]:
        paths = {"small": task.work / f"{name}.edgelm", "whole": task.work / f"{UNPRUNED}.edgelm"}
        variant |= _latency(variant["engine"], variant["file"], paths)
        print(f"{task.name}/{name} {variant['engine']}: {variant['faster']:.2f} times as fast", flush=True)
    return row | {"machine": to_dict(machine())}


def _task(name: str, data: Path, models: Path, work: Path) -> Task:
    (work / name).mkdir(parents=True, exist_ok=True)
    texts = data / name
    more = {recipe: data / other / "train.jsonl" for (task, recipe), other in SENTENCES.items() if task == name}
    found = {recipe: _sentences(path, work / name / f"{recipe}.sentences.txt") for recipe, path in more.items()}
    return Task(name, models / f"{name}-teacher", texts / "train.jsonl", texts / "dev.jsonl", work / name, found)


def _sentences(reviews: Path, out: Path) -> Path:
    """A file with every sentence of some reviews, each once."""
    found = dict[str, None]()
    for row in map(json.loads, reviews.read_text(encoding="utf-8").strip().split("\n")):
        text = re.sub(r"\s+", " ", row["text"].replace("<br />", " "))
        found |= dict.fromkeys(one for one in re.split(r"(?<=[.!?]) ", text.strip()) if len(one.split()) in WORDS)
    with staged(out) as staging:
        staging.write_text("\n".join(found) + "\n", encoding="utf-8")
    return out


def _instructions(bundle: Path, lab: Path) -> dict[str, dict[str, int]]:
    """Of a request, for each engine by emulated core; it ends here if the logits there are not this machine's."""
    out = bundle.with_suffix(".arm.json")
    command = [sys.executable, str(ROOT / "benchmarks" / "arm" / "count.py"), str(bundle), "--lab", str(lab)]
    subprocess.run([*command, "--core", ",".join(ARM), "--tokens", str(TOKENS), "--json", str(out)], check=True)
    found = defaultdict[str, dict[str, int]](dict)
    for count in json.loads(out.read_text(encoding="utf-8"))["counts"]:
        found[count["engine"]][count["core"]] = count["instructions"]
    return found


def _packed(small: compression.Compressed, located: Located, out: Path) -> tuple[tuple[Variant, ...], str | None]:
    """The artifacts, or which of them is outside its gate: a result like any other, that ends no run of an hour."""
    try:
        return build.export(small, located, out, progress=progress).variants, None
    except GateFailed as exc:
        return (), str(exc)


def _loss(before: Reference, after: Reference) -> dict[str, Any]:
    """Points lost on the same texts, with the 95 % interval of the paired difference (normal approximation)."""
    gold = before.texts.gold
    right = [(one.logits.argmax(-1) == gold).astype(np.float64) for one in (before, after)]
    apart = 100 * (right[0] - right[1])
    error = 1.96 * float(apart.std(ddof=1)) / math.sqrt(len(apart))
    mean = float(apart.mean())
    return {"loss": round(mean, 3), "interval": [round(mean - error, 3), round(mean + error, 3)], "n": len(apart)}


def _unknown(tokenizer: bytes, reference: Reference) -> int:
    """How many [UNK] the dev texts are cut into."""
    vocab = json.loads(tokenizer)["model"]["vocab"]
    return sum(int((row == vocab["[UNK]"]).sum()) for row in reference.rows)


def _latency(name: str, file: str, bundles: dict[str, Path]) -> dict[str, float]:
    """Median milliseconds of an artifact and of its unpruned like, in turns."""
    sessions: dict[str, Session] = {
        key: engine(name).load(Bundle(path).read(file), threads=THREADS) for key, path in bundles.items()
    }
    requests = {key: partial(session.run, *token_ids(TOKENS, batch=1, vocab=1000)) for key, session in sessions.items()}
    samples = interleaved(requests, warmup=20, seconds=2.0, min_count=300)
    for session in sessions.values():
        session.close()
    small_ms, whole_ms = (statistics.median(samples[key]) / 1e6 for key in ("small", "whole"))
    return {
        "p50_ms": round(small_ms, 4),
        "unpruned_p50_ms": round(whole_ms, 4),
        "faster": round(whole_ms / small_ms, 2),
    }


def _hashes(task: Task, name: str) -> dict[str, str]:
    more = [task.sentences[name]] if name in task.sentences else []
    return {path.name: data.sha256(path) for path in (task.train, task.dev, *more)}


def _write(path: Path, content: dict[str, Any]) -> None:
    with staged(path) as staging:
        staging.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
