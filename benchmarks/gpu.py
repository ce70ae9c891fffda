"""edgelm on an NVIDIA GPU beside PyTorch there: latency, lists, first answer, accuracy.

``make bench-gpu`` writes the result as JSON and docs/gpu.md from it, on a machine with a GPU, onnxruntime-gpu and a
PyTorch built for CUDA. Speed is of a DistilBERT of full size with random weights; accuracy of the teacher for SST-2.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import transformers
from numpy.typing import NDArray
from runtime import TEXT, VOCAB, tokenizer

import edgelm
from edgelm import build, compression, console, recipe, runtimes
from edgelm.bundle import Bundle, staged
from edgelm.devices.machine import machine
from edgelm.predictor import Model
from edgelm.profile.timing import interleaved
from edgelm.runtimes.place import Place
from edgelm.schema import to_dict

ROOT = Path(__file__).parent.parent
SHAPES = ((1, 16), (1, 32), (1, 64), (1, 128), (1, 512), (16, 32), (16, 128), (64, 32), (64, 128))
SECONDS, COUNT, WARMUP = 3.0, 50, 20
SENTENCES, COLD_RUNS = 4000, 5
SOAK, SETTLED = 20_000, 500
ANY = {"max_abs_diff": 1e3, "agreement": 0.0, "kl": 1e3, "accuracy_loss": 100.0}  # the weights are random
FRESH = """
import sys, time
begin = time.perf_counter()
import edgelm
model = edgelm.load(sys.argv[1], device="cuda", precision=sys.argv[2])
model(sys.argv[3])
print(time.perf_counter() - begin)
"""


def main() -> None:
    """Run all parts: five minutes."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, help="folder with sst2/dev.jsonl")
    arguments.add_argument("--models", type=Path, help="folder with sst2-teacher")
    arguments.add_argument("--part", action="append", help="only this one; the others stay")
    arguments.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "gpu.json")
    arguments.add_argument("--work", type=Path, default=ROOT / "build" / "gpu", help="kept: bundles are made once")
    given = arguments.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    os.environ["EDGELM_CACHE"] = str(given.work / "cache")
    checkpoint, path = full_size(given.work)
    parts: dict[str, Callable[[], Any]] = {
        "nodes": lambda: nodes(path),
        "speed": lambda: list(speed(path, checkpoint)),
        "lists": lambda: lists(path, checkpoint),
        "first_answer": lambda: first_answer(path),
        "soak": lambda: soak(path),
    }
    if given.data and given.models:
        parts["accuracy"] = lambda: accuracy(given.models / "sst2-teacher", given.data / "sst2", given.work)
    result: dict[str, Any] = json.loads(given.out.read_text("utf-8")) if given.part and given.out.exists() else {}
    result |= {"schema": "edgelm.bench-gpu/1", "machine": to_dict(machine())}
    result["torch"], result["transformers"] = torch.__version__, transformers.__version__
    for name in given.part or parts:
        begin = time.monotonic()
        result[name] = parts[name]()
        print(f"{name}: {time.monotonic() - begin:.0f} s  {json.dumps(result[name])[:1500]}", flush=True)
        with staged(given.out) as staging:
            staging.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def full_size(work: Path) -> tuple[Path, Path]:
    """A DistilBERT with random weights: its checkpoint, and its bundle in fp16 and fp32."""
    checkpoint = work / "distilbert"
    if not checkpoint.exists():
        torch.manual_seed(0)
        shape = transformers.DistilBertConfig(id2label=dict(enumerate(("negative", "positive"))))
        transformers.DistilBertForSequenceClassification(shape).save_pretrained(checkpoint)
        (checkpoint / "tokenizer.json").write_text(tokenizer(), encoding="utf-8")
        settings = '{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}'
        (checkpoint / "tokenizer_config.json").write_text(settings, encoding="utf-8")
    return checkpoint, exported(checkpoint, work / "distilbert.edgelm")


def exported(checkpoint: Path, out: Path, **data: Any) -> Path:
    """A bundle for CUDA; made once."""
    if not out.exists():
        wanted = {"device": "nvidia-cuda", "precisions": ["fp16", "fp32"], "lengths": [512]}
        located = recipe.of(export=wanted, gates={"fp16": ANY, "fp32": ANY}, **data).with_model(str(checkpoint))
        build.export(compression.compress(located), located, out, progress=console.progress)
    return out


def in_torch(checkpoint: Path, dtype: torch.dtype) -> Any:
    """The checkpoint on the GPU, as transformers reads it."""
    kind = transformers.AutoModelForSequenceClassification
    return kind.from_pretrained(checkpoint, dtype=dtype).cuda().eval()


def nodes(path: Path) -> dict[str, Any]:
    """Where ONNX Runtime runs the nodes of each variant."""
    found = {}
    for precision in ("fp16", "fp32"):
        with edgelm.load(path, device="cuda", precision=precision) as model:
            facts = model.explain()
            found[precision] = {name: facts[name] for name in ("provider", "nodes", "cuda_graphs", "self_test")}
    return found


def speed(path: Path, checkpoint: Path) -> Iterator[dict[str, Any]]:
    """Milliseconds of a request, text ids to logits in the host's memory, everyone in turn."""
    torch._dynamo.config.recompile_limit = len(SHAPES)
    compiled = torch.compile(in_torch(checkpoint, torch.float16), mode="reduce-overhead", dynamic=False)
    modules = {
        "PyTorch fp32": in_torch(checkpoint, torch.float32),
        "PyTorch fp16": in_torch(checkpoint, torch.float16),
        "torch.compile fp16": compiled,
    }
    with ExitStack() as stack:
        sessions = dict[str, runtimes.Session]()
        for variant in Bundle(path).manifest.variants:
            session = runtimes.load(Bundle(path), variant, threads=1, place=Place("cuda"))
            stack.callback(session.close)
            sessions[f"edgelm {variant.precision}"] = session
        bare = bare_session(Bundle(path).read("model.fp16.onnx"))
        for rows, tokens in SHAPES:
            ids = np.random.default_rng(0).integers(5, VOCAB, (rows, tokens), dtype=np.int32)
            mask = np.ones_like(ids)
            requests: dict[str, Callable[[], Any]] = {
                name: partial(session.run, ids, mask) for name, session in sessions.items()
            }
            requests["ONNX Runtime fp16"] = partial(of_bare, bare, ids, mask)
            requests |= {name: partial(of_torch, module, ids, mask) for name, module in modules.items()}
            reference = requests["PyTorch fp32"]()
            difference = {name: float(np.abs(request() - reference).max()) for name, request in requests.items()}
            samples = interleaved(requests, warmup=WARMUP, seconds=SECONDS, min_count=COUNT)
            yield {
                "rows": rows,
                "tokens": tokens,
                "ms": {name: statistics.median(ns) / 1e6 for name, ns in samples.items()},
                "p90_ms": {name: float(np.quantile(ns, 0.9)) / 1e6 for name, ns in samples.items()},
                "n": {name: len(ns) for name, ns in samples.items()},
                "difference": difference,
                "largest": float(np.abs(reference).max()),
            }


def bare_session(artifact: bytes) -> Any:
    """ONNX Runtime as people start it on CUDA."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(artifact, options, providers=["CUDAExecutionProvider"])


def of_bare(session: Any, ids: NDArray[np.int32], mask: NDArray[np.int32]) -> NDArray[np.float32]:
    """Logits, as people ask for them."""
    logits: NDArray[np.float32] = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    return logits


@torch.inference_mode()
def of_torch(module: Any, ids: NDArray[np.int32], mask: NDArray[np.int32]) -> NDArray[np.float32]:
    """Logits, with the way to the device and back."""
    given = {"input_ids": torch.from_numpy(ids).cuda().long(), "attention_mask": torch.from_numpy(mask).cuda().long()}
    logits: NDArray[np.float32] = module(**given).logits.float().cpu().numpy()
    return logits


def lists(path: Path, checkpoint: Path) -> list[dict[str, Any]]:
    """Sentences a second, texts to labels, of a list of mixed lengths."""
    random, words = np.random.default_rng(0), TEXT.split()
    texts = [" ".join(random.choice(words, size)) for size in random.geometric(1 / 18, SENTENCES).clip(1, 120)]
    pipeline = transformers.pipeline(
        "text-classification",
        model=in_torch(checkpoint, torch.float16),
        tokenizer=transformers.AutoTokenizer.from_pretrained(checkpoint),
        device=0,
    )
    with edgelm.load(path, device="cuda", precision="fp16") as model:
        asked: dict[str, Callable[[], Any]] = {
            "edgelm, the list": lambda: model(texts),
            "edgelm, one by one": lambda: [model(text) for text in texts],
            "transformers.pipeline, batch_size=64": lambda: pipeline(texts, batch_size=64),
            "transformers.pipeline, one by one": lambda: pipeline(texts[: SENTENCES // 8]),
        }
        rows = []
        for name, ask in asked.items():
            ask()
            times = []
            for _ in range(3):
                begin = time.perf_counter()
                count = len(ask())
                times.append((time.perf_counter() - begin) / count)
            rows.append({"name": name, "per_second": 1 / statistics.median(times)})
        return rows


def first_answer(path: Path) -> list[dict[str, Any]]:
    """Seconds of a fresh process until it has answered; the first of each tests the variant, and is not counted."""
    rows = []
    for precision in ("fp16", "fp32"):
        times = []
        for _ in range(1 + COLD_RUNS):
            command = [sys.executable, "-c", FRESH, str(path), precision, TEXT]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            times.append(float(done.stdout.split()[-1]))
        rows.append({"precision": precision, "again_s": statistics.median(times[1:]), "runs": COLD_RUNS})
    return rows


def soak(path: Path) -> dict[str, Any]:
    """Memory of the GPU, by all processes, and of this one, after the first requests of random length and after all."""
    random, process = np.random.default_rng(0), psutil.Process()
    with edgelm.load(path, device="cuda", precision="fp16") as model:
        words, most = TEXT.split(), model.manifest.max_tokens
        texts = [" ".join(random.choice(words, size)) for size in random.integers(1, most, SOAK)]
        held = []
        for some in (texts[:SETTLED], texts[SETTLED:]):
            for text in some:
                model.logits([text])
            held.append({"gpu_bytes": in_use(), "resident_bytes": process.memory_info().rss})
    return {"requests": SOAK, "settled": SETTLED, "tokens": [1, most], "before": held[0], "after": held[1]}


def in_use() -> int:
    """Bytes of the first GPU."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) * 2**20


def accuracy(teacher: Path, data: Path, work: Path) -> dict[str, Any]:
    """Of SST-2's dev set, by each variant on CUDA, and by PyTorch there in float32."""
    lines = [json.loads(line) for line in (data / "dev.jsonl").read_text("utf-8").splitlines()]
    texts, gold = [line["text"] for line in lines], [str(line["label"]) for line in lines]
    found = dict[str, NDArray[np.float32]]()
    path = exported(teacher, work / "sst2.edgelm", data={"dev": str(data / "dev.jsonl")})
    for precision in ("fp16", "fp32"):
        with edgelm.load(path, device="cuda", precision=precision) as model:
            found[f"edgelm {precision}"] = model.logits(texts)
    module = in_torch(teacher, torch.float32)
    found["PyTorch fp32"] = np.concatenate([of_torch(module, *row) for row in rows_of(model, texts)])
    right = np.array([model.labels.index(one) for one in gold])
    rows = {
        name: {
            "accuracy": float(np.mean(logits.argmax(1) == right)),
            "difference": float(np.abs(logits - found["PyTorch fp32"]).max()),
        }
        for name, logits in found.items()
    }
    return {"n": len(texts), "largest": float(np.abs(found["PyTorch fp32"]).max()), "rows": rows}


def rows_of(model: Model, texts: list[str]) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Each text as a batch of one."""
    for ids in model.tokenizer.encode(texts):
        yield ids[None], np.ones_like(ids)[None]


if __name__ == "__main__":
    main()
