"""What the runtime costs: first answer, overhead, choosing, padding, memory over time, threads, and what pip installs.

Measured on a DistilBERT of full size with random weights, and for the soak on a small one. ``make bench-runtime``
writes the result as JSON and docs/runtime.md from it. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import edgelm
from edgelm.bundle import Bundle, staged
from edgelm.devices.machine import cores, detect, machine
from edgelm.manifest import Variant
from edgelm.predictor import Model
from edgelm.profile.timing import interleaved
from edgelm.runtimes import Session, engine
from edgelm.runtimes.choose import able
from edgelm.schema import to_dict

ROOT = Path(__file__).parent.parent
ENGINES = ("onnxruntime", "litert")
LENGTHS = (16, 32, 64, 128, 256, 512)
VOCAB, SPECIAL = 30522, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXT = "how much money do i have in my account and when does the next payment arrive"
REPEATS, COLD_RUNS = 9, 20
SENTENCES = 1000
SOAK, SETTLED = 20_000, 500
REST_S = 0.02


def main() -> None:
    """Run all parts, or those that are named; half an hour."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--part", action="append", choices=sorted(PARTS), help="only this one; the others stay")
    arguments.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "runtime.json")
    arguments.add_argument("--work", type=Path, default=ROOT / "build" / "runtime", help="kept: bundles are made once")
    given = arguments.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    os.environ["EDGELM_CACHE"] = str(given.work / "cache")
    result: dict[str, Any] = json.loads(given.out.read_text("utf-8")) if given.part and given.out.exists() else {}
    result |= {"schema": "edgelm.bench-runtime/1", "machine": to_dict(machine())}
    for path in (bundle(given.work), bundle(given.work, layers=2, dim=256)):
        print(f"{path.name}: {path.stat().st_size} bytes", flush=True)  # they are made before anything is timed
    for name in given.part or PARTS:
        start, load = time.monotonic(), psutil.getloadavg()[0]
        result[name] = PARTS[name](given.work)
        result.setdefault("load", {})[name] = [load, psutil.getloadavg()[0]]
        print(f"{name}: {time.monotonic() - start:.0f} s  {json.dumps(result[name])[:300]}", flush=True)
        with staged(given.out) as staging:
            staging.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def bundle(work: Path, layers: int = 6, dim: int = 768) -> Path:
    """A DistilBERT with random weights, exported in fp32 and int8-dynamic; made once."""
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    from edgelm import build, compression, console, recipe

    out, folder = work / f"distilbert-{layers}.edgelm", work / f"checkpoint-{layers}"
    if out.exists():
        return out
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_layers": layers, "dim": dim, "n_heads": dim // 64, "hidden_dim": 4 * dim}
    shape = DistilBertConfig(**sizes, id2label=dict(enumerate(("negative", "positive"))))
    DistilBertForSequenceClassification(shape).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}', encoding="utf-8")
    loose = {"max_abs_diff": 1e3, "agreement": 0.0, "kl": 1e3, "accuracy_loss": 100.0}
    wanted = {"device": detect(), "precisions": ["int8-dynamic", "fp32"], "lengths": list(LENGTHS)}
    gates = {"fp32": loose, "int8-dynamic": loose}
    located = recipe.of(export=wanted, gates=gates).with_model(str(folder))
    build.export(compression.compress(located), located, out, progress=console.progress)
    return out


def tokenizer() -> str:
    """WordPiece with as many pieces as BERT's: the words of the text, letters, and made-up words."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*TEXT.split(), *letters, *(f"##{one}" for one in letters)]
    words += [a + b + c + d for a in letters for b in letters for c in letters for d in "aeiou"]
    pieces = list(dict.fromkeys([*SPECIAL, *words]))[:VOCAB]
    made = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.add_special_tokens(SPECIAL)
    return made.to_str()


def first_answer(work: Path) -> list[dict[str, Any]]:
    """Seconds and memory of a fresh process until it has answered; the first of each is not counted."""
    path = bundle(work)
    opened = Bundle(path)
    (work / "tokenizer.json").write_bytes(opened.tokenizer)
    commands = {f"edgelm:{name}": [str(path)] for name in ENGINES} | {"transformers": [str(work / "checkpoint-6")]}
    for variant in opened.manifest.variants:
        if variant.precision == "int8-dynamic":
            (work / variant.file).write_bytes(opened.read(variant.file))
            commands[f"bare:{variant.engine}"] = [str(work / variant.file), str(work / "tokenizer.json")]
    only = work / "int8.edgelm"
    _narrow(opened, only)
    commands |= {f"{kind}:{name}": [str(only)] for kind in ("edgelm", "first") for name in ENGINES}
    found: dict[str, list[dict[str, float]]] = {how: [] for how in commands}
    for _ in range(1 + REPEATS):
        for how, arguments in commands.items():
            with tempfile.TemporaryDirectory() as nothing:
                cache = {"EDGELM_CACHE": nothing} if how.startswith("first:") else {}
                found[how].append(fresh(how, *arguments, **cache))
    return [
        {
            "how": how,
            "seconds": statistics.median(one["seconds"] for one in runs[1:]),
            "peak_rss_bytes": statistics.median(one["peak_rss_bytes"] for one in runs[1:]),
        }
        for how, runs in found.items()
    ]


def fresh(how: str, *arguments: str, **environment: str) -> dict[str, float]:
    """What ``fresh.py`` says."""
    script = str(ROOT / "benchmarks" / "fresh.py")
    command = [sys.executable, "-W", "ignore", script, how, str(time.monotonic()), *arguments]
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=plain | environment)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def overhead(work: Path) -> list[dict[str, Any]]:
    """Microseconds a request takes around the engine and the tokenizer, by number of classes."""
    opened, rows = Bundle(bundle(work)), list[dict[str, Any]]()
    for classes in (2, 150):
        labels = tuple(map(str, range(classes)))
        from msgspec.structs import replace

        manifest = replace(opened.manifest, labels=labels)
        session = engine("null").load(str(classes).encode(), threads=1)
        model = Model(manifest, opened.tokenizer, manifest.variants[0], session, {})
        requests: dict[str, Callable[[], object]] = {
            "whole": lambda model=model: model(TEXT),  # type: ignore[misc]
            "tokenizer": lambda model=model: model.tokenizer.encode([TEXT]),  # type: ignore[misc]
        }
        times = interleaved(requests, warmup=100, seconds=2.0, min_count=2000)
        median = {name: statistics.median(samples) / 1e3 for name, samples in times.items()}
        rows.append(
            {"classes": classes, "us": median["whole"] - median["tokenizer"], "tokenizer_us": median["tokenizer"]}
        )
    return rows


def choosing(work: Path) -> dict[str, Any]:
    """How often a cold run takes a variant within 5 % of the fastest, alone and beside other work."""
    path, threads = bundle(work), cores()
    truth = medians(path, threads)
    fastest, rows = min(truth.values()), list[dict[str, Any]]()
    for busy in (0, 1, 2):
        regrets, seconds = list[float](), list[float]()
        with busy_processes(busy):
            for _ in range(COLD_RUNS):
                chosen, took = cold_run(path)
                regrets.append(truth[chosen] / fastest - 1)
                seconds.append(took)
        good = sum(regret <= 0.05 for regret in regrets)
        rows.append(
            {
                "busy": busy,
                "good": good,
                "runs": COLD_RUNS,
                "worst": max(regrets),
                "seconds": statistics.median(seconds),
            }
        )
    return {"medians_ms": truth, "rows": rows}


def medians(path: Path, threads: int) -> dict[str, float]:
    """Of each variant, milliseconds for a request of 16 and one of 32 tokens, measured at length."""
    opened, random = Bundle(path), np.random.default_rng(1)
    inputs = [random.integers(0, opened.manifest.model.vocab, (1, tokens), dtype=np.int32) for tokens in (16, 32)]
    sessions = {
        f"{v.engine} {v.precision}": engine(v.engine).load(opened.read(v.file), threads=threads)
        for v in able(opened.manifest)
    }

    def both(session: Session) -> Callable[[], None]:
        return lambda: [session.run(ids, np.ones_like(ids)) for ids in inputs] and None  # type: ignore[return-value]

    requests = {name: both(session) for name, session in sessions.items()}
    times = interleaved(requests, warmup=3, seconds=30.0, min_count=100, rest_s=REST_S)
    for session in sessions.values():
        session.close()
    return {name: statistics.median(samples) / 1e6 for name, samples in times.items()}


def cold_run(path: Path) -> tuple[str, float]:
    """What a process that remembers nothing takes, and how long its first load takes."""
    program = (
        "import sys, time, json; start = time.monotonic()\n"
        "import edgelm; model = edgelm.load(sys.argv[1]); facts = model.explain()\n"
        "print(json.dumps([f\"{facts['engine']} {facts['precision']}\", time.monotonic() - start]))"
    )
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ) | {"EDGELM_CACHE": folder}
        command = [sys.executable, "-c", program, str(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    chosen, seconds = json.loads(done.stdout)
    return chosen, seconds


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many other processes that compute without end."""
    program = "import numpy as np\na = np.ones((300, 300))\nwhile True: a @ a"
    environment = dict(os.environ) | {"OPENBLAS_NUM_THREADS": "1"}
    started = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(count)]
    time.sleep(0.5 if count else 0.0)
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def padding(work: Path) -> list[dict[str, Any]]:
    """Seconds for a list of sentences of mixed length, beside the same padded to 128 tokens."""
    path, random = bundle(work), np.random.default_rng(0)
    words = TEXT.split()
    # lengths as of sentences in reviews: a log-normal with a median of 16 words
    counts = np.clip(random.lognormal(np.log(16), 0.6, SENTENCES), 1, 120).astype(int)
    texts = [" ".join(random.choice(words, count)) for count in counts]
    rows = list[dict[str, Any]]()
    for name in ENGINES:
        with edgelm.load(path, engine=name, precision="int8-dynamic") as model:
            model(texts[:50])
            start = time.monotonic()
            model(texts)
            ours = time.monotonic() - start
            ids = model.tokenizer.encode(texts)
            padded = {batch: _padded(model, ids, batch) for batch in (1, 32)}
        rows.append(
            {
                "engine": name,
                "texts": SENTENCES,
                "tokens": float(np.mean([len(row) for row in ids])),
                "seconds": ours,
                "padded_seconds": padded,
            }
        )
    return rows


def _padded(model: Model, rows: list[Any], batch: int) -> float:
    start = time.monotonic()
    for at in range(0, len(rows), batch):
        ids, mask = model.tokenizer.batch([row[:128] for row in rows[at : at + batch]], 128)
        if model.variant.lengths:  # LiteRT runs row by row; unmasked, so that it takes the signature of 128
            ids, mask = ids, np.ones_like(mask)
        model._session.run(ids, mask)
    return time.monotonic() - start


def soak(work: Path) -> list[dict[str, Any]]:
    """Resident memory over many requests of random length, each engine in a process of its own."""
    path, rows = bundle(work, layers=2, dim=256), list[dict[str, Any]]()
    commands = [[sys.executable, __file__, "--soak", name, str(path)] for name in ENGINES]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    for process in running:  # at the same time: nothing here is timed
        said, _ = process.communicate()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)
        rows.append(json.loads(said.splitlines()[-1]))
    return rows


def soak_one(name: str, path: str, requests: int = SOAK) -> dict[str, Any]:
    """Of one engine: resident memory after the first requests, the most after them, and at the end."""
    random, process = np.random.default_rng(0), psutil.Process()
    with edgelm.load(path, engine=name, precision="int8-dynamic", threads=1) as model:
        settled = most = 0
        for index in range(1, requests + 1):
            ids = random.integers(5, VOCAB // 2, (1, random.integers(1, LENGTHS[-1] + 1)), dtype=np.int32)
            model._session.run(ids, np.ones_like(ids))
            if index == SETTLED:
                settled = most = process.memory_info().rss
            elif index > SETTLED and index % 50 == 0:
                most = max(most, process.memory_info().rss)
        after = process.memory_info().rss
    return {
        "engine": name,
        "requests": requests,
        "settled_bytes": settled,
        "most_bytes": most,
        "end_bytes": after,
        "closed_bytes": process.memory_info().rss,
    }


def threads(work: Path) -> list[dict[str, Any]]:
    """Requests a second of one model, asked by one thread and by eight; and of two models asked in turn."""
    path, rows = bundle(work), list[dict[str, Any]]()
    for name in ENGINES:
        options: dict[str, Any] = {"engine": name, "precision": "int8-dynamic"}
        with edgelm.load(path, **options) as model, edgelm.load(path, **options) as other:
            texts = [TEXT] * 400
            rates = {count: [_rate(model, texts, count) for _ in range(3)] for count in (1, 8)}
            turns: dict[str, Callable[[], object]] = {
                "same": lambda: (model(TEXT), model(TEXT)),
                "in turn": lambda: (model(TEXT), other(TEXT)),
            }
            times = {
                key: statistics.median(interleaved({key: call}, warmup=20, seconds=4.0, min_count=100)[key]) / 2e6
                for key, call in turns.items()
            }
        rows.append(
            {"engine": name, "per_second": {str(count): max(found) for count, found in rates.items()}, "ms": times}
        )
    return rows


def _rate(model: Model, texts: list[str], count: int) -> float:
    start = time.monotonic()
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(model, texts))
    return len(texts) / (time.monotonic() - start)


def install(work: Path) -> list[dict[str, Any]]:
    """What a plain ``pip install`` of the wheel brings into a clean environment."""
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Path(name)
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        python, wheel = folder / "venv" / "bin" / "python", next(folder.glob("*.whl"))
        constraints = ["--constraint", str(ROOT / "constraints.txt")]
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *constraints, str(wheel)], check=True)
        listed = subprocess.run([str(python), "-I", "-c", LIST], capture_output=True, text=True, check=True).stdout
    rows: list[dict[str, Any]] = json.loads(listed)
    return rows


LIST = """
import json
from importlib.metadata import distributions
rows = []
for one in distributions():
    if one.name.lower() not in ("pip", "setuptools"):
        sizes = [path.locate().stat().st_size for path in one.files or () if path.locate().exists()]
        needs = [need.split(";")[0].strip() for need in one.requires or () if "extra ==" not in need]
        rows.append({"name": one.name, "version": one.version, "bytes": sum(sizes), "needs": needs})
print(json.dumps(sorted(rows, key=lambda row: -row["bytes"])))
"""


def _narrow(opened: Bundle, out: Path) -> None:
    """A bundle with the int8 variants alone."""
    from msgspec.structs import replace

    from edgelm.bundle import MANIFEST, write

    variants: tuple[Variant, ...] = tuple(v for v in opened.manifest.variants if v.precision == "int8-dynamic")
    left_out = {n for v in opened.manifest.variants for n in v.files if v not in variants} | {MANIFEST}
    files = {name: opened.read(name) for name in opened.downloads if name not in left_out}
    write(out, replace(opened.manifest, variants=variants), files)


PARTS: dict[str, Callable[[Path], Any]] = {
    "first_answer": first_answer,
    "overhead": overhead,
    "choosing": choosing,
    "padding": padding,
    "soak": soak,
    "threads": threads,
    "install": install,
}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--soak"]:
        print(json.dumps(soak_one(sys.argv[2], sys.argv[3])))
    else:
        main()
