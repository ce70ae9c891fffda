"""What every precision keeps, weighs and costs in both formats, for every task.

``make bench-export DATA=FOLDER MODELS=FOLDER`` writes benchmarks/export.json, part after part; a part that is there is
kept, unless some of its variants are asked for ``--again``. ``export_page.py`` makes docs/export.md of it.

Accuracy: of the exported artifact, run by its engine, on the whole of each dev set, against the PyTorch module in fp32.
Speed: all artifacts are loaded at once and run in turn, once untimed and once timed, one thread, one text; the median.
A processor with VNNI has a part of its own, for which what lies in build/export is enough.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from edgelm import checkpoint, data, devices, tasks
from edgelm.bundle import staged
from edgelm.check import Reference, check
from edgelm.compression import calibration, compress
from edgelm.data import Dataset
from edgelm.devices.machine import detect, machine
from edgelm.exporters import Report, exporter
from edgelm.exporters.parity import task_of
from edgelm.manifest import Precision
from edgelm.model import Encoder, EncoderConfig, parameters
from edgelm.recipe import Data, Export, Gate, Located, Recipe
from edgelm.runtimes import Ids, Session, engine
from edgelm.schema import to_dict
from edgelm.text import Tokenizer, padded

ROOT = Path(__file__).parent.parent
OUT, BUILT = ROOT / "benchmarks" / "export.json", ROOT / "build" / "export"
LENGTHS = (16, 32, 64, 128)
TIMED, ROUNDS, WARMUP = (16, 32, 40, 65, 80, 128), 21, 3
ENGINES = {"onnx": "onnxruntime", "tflite": "litert"}
OPEN = Gate(max_abs_diff=1e9, agreement=0.0, kl=1e9, accuracy_loss=1e9)
FULL = EncoderConfig(
    vocab_size=30522, dim=768, head_dim=64, heads=(12,) * 6, ffn=(3072,) * 6, max_positions=512, labels=("no", "yes")
)
"""DistilBERT-base, 66.4 M parameters and a head for two classes; its weights are random, which costs the same."""


@dataclass(frozen=True)
class Job:
    """A model and its data: names below the folders that are given."""

    task: str
    model: str
    train: str
    dev: str


JOBS = (
    Job("SST-2", "sst2-teacher", "sst2/train.jsonl", "sst2/dev.jsonl"),
    Job("WNUT17", "wnut17", "wnut17/train.jsonl", "wnut17/dev.jsonl"),
    Job("SQuAD", "squad", "squad/train.json", "squad/dev.json"),
    Job("STS-B", "vectors", "stsb/train.jsonl", "stsb/dev.jsonl"),
    Job("masked words", "masks", "unlabelled/textbooks.txt", "unlabelled/textbooks.txt"),
    Job("CLINC150", "clinc150-teacher", "clinc150/train.jsonl", "clinc150/dev.jsonl"),
)


def main() -> None:
    """Measure what is not there yet: one to two hours."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True, help="folder with sst2/, clinc150/, squad/, …")
    arguments.add_argument("--models", type=Path, required=True, help="folder with sst2-teacher, clinc150-teacher")
    arguments.add_argument("--heads", type=Path, default=ROOT / "build" / "heads", help="what heads.py made")
    arguments.add_argument("--part", choices=[*(job.task for job in JOBS), "others", "full", "speed"], action="append")
    arguments.add_argument("--again", metavar="FORMAT/PRECISION", action="append", help="of the tasks, these alone")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    folders, again = [given.models, given.heads], [tuple(one.split("/")) for one in given.again or ()]
    parts: dict[str, Callable[[], Any]] = {
        **{job.task: lambda job=job: accuracy(job, given.data, folders, again) for job in JOBS},  # type: ignore[misc]
        "others": lambda: others(given.data, given.models),
        "full": full,
        "speed": speed,
    }
    for asked, part in parts.items():
        if given.part and asked not in given.part:
            continue
        name = "speed with VNNI" if asked == "speed" and "avx512_vnni" in machine().isa else asked
        found: dict[str, Any] = {"schema": "edgelm.bench-export/2", "parts": {}}
        if OUT.exists():
            found = json.loads(OUT.read_bytes())
        there = found["parts"].get(name, {})
        if (there and not again) or (again and "rows" not in there):
            continue
        load, started = os.getloadavg()[0], time.perf_counter()
        result = part()
        found = json.loads(OUT.read_bytes()) if OUT.exists() else found  # another part may have ended meanwhile
        if again:
            rows = {(row.get("format"), row["precision"]): row for row in result}
            result = [rows.get((row.get("format"), row["precision"]), row) for row in there["rows"]]
        conditions = {"machine": to_dict(machine()), "load": [load, os.getloadavg()[0]]}
        found["parts"][name] = {**conditions, "seconds": time.perf_counter() - started, "rows": result}
        with staged(OUT) as staging:
            staging.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def accuracy(
    job: Job, texts: Path, folders: Sequence[Path], wanted: Collection[tuple[str, ...]] = ()
) -> list[dict[str, Any]]:
    """Every format and precision of one model, or those that are wanted, against the module."""
    from edgelm.exporters import reading

    folder = next(folder / job.model for folder in folders if (folder / job.model).is_dir())
    given = Data(train=str((texts / job.train).absolute()))
    recipe = Recipe(
        schema="edgelm.recipe/1", model=str(folder), data=given, export=Export(device=detect()), gates=_open()
    )
    located = Located(recipe, Path())
    compressed = compress(located)  # as it is: the recipe has no step
    dev = data.examples(texts / job.dev, task_of(compressed.model))
    if job.task == "masked words":
        dev = Dataset(dev.texts[:1000], dev.gold)  # heads.py trains on what comes after them
    module = Reference(compressed.model, compressed.tokenizer, max(LENGTHS), dev)
    assert module.scores is not None
    rows: list[dict[str, Any]] = [{"precision": "PyTorch", "scores": [to_dict(score) for score in module.scores]}]
    texts_to_calibrate = calibration(located, compressed)
    assert texts_to_calibrate is not None
    for form in ("onnx", "tflite"):
        precisions = [one for one in exporter(form).PRECISIONS if not wanted or (form, one) in wanted]
        found = exported(form, precisions, compressed.model, texts_to_calibrate)
        for precision, (artifact, report) in found.items():
            row = judged(form, precision, artifact, module, recipe)
            row |= {"seconds": report.seconds, "notes": list(report.notes)}
            if (form, precision) == ("tflite", "fp32"):
                row["read_by_tf2onnx"] = reading.difference(compressed.model, artifact, max(LENGTHS), module.rows[:50])
            rows.append(row)
            print(job.task, json.dumps(row), flush=True)
    return rows


def _open() -> dict[Precision, Gate]:
    return dict.fromkeys(exporter("onnx").PRECISIONS, OPEN)


def judged(form: str, precision: Precision, artifact: bytes, module: Reference, recipe: Recipe) -> dict[str, Any]:
    """What is found of an artifact, by the same check that every export goes through, but with open gates."""
    variant = check(form, precision, artifact, LENGTHS, module, module, recipe, lambda units: None)
    assert variant.score is not None
    assert module.score is not None
    return {
        "format": form,
        "precision": precision,
        "bytes": variant.bytes,
        "parity": to_dict(variant.parity),
        "score": to_dict(variant.score),
        "loss": tasks.loss(module.score, variant.score),
    }


def exported(
    form: str, precisions: Sequence[Precision], model: Encoder, rows: Sequence[Ids]
) -> dict[Precision, tuple[bytes, Report]]:
    """Precisions of a format, with the kind of integers that this machine multiplies."""
    reports, module = list[Report](), exporter(form)
    integers = devices.load(detect()).int8
    made = module.export(model, precisions, LENGTHS, calibration=rows, int8=integers, tell=reports.append)
    return {name: (artifact, report) for (name, artifact), report in zip(made.items(), reports, strict=True)}


def others(texts: Path, models: Path) -> list[dict[str, Any]]:
    """Static int8 of the SST-2 teacher as other tools write it by default, from 100 of its training texts."""
    original = checkpoint.read(models / "sst2-teacher")
    task = task_of(original.model)
    dev = data.examples(texts / "sst2" / "dev.jsonl", task)
    module = Reference(original.model, original.tokenizer, max(LENGTHS), dev)
    train = data.examples(texts / "sst2" / "train.jsonl", task).texts[::670][:100]
    rows = Tokenizer(original.tokenizer, max_tokens=max(LENGTHS), pad_token_id=0).encode(list(train))
    recipe, found = Recipe(schema="edgelm.recipe/1", model="sst2-teacher", gates=_open()), list[dict[str, Any]]()
    for name, form, artifact in (*by_others(original.model, rows), *by_us(original.model, rows)):
        found.append(judged(form, "int8-static", artifact, module, recipe) | {"by": name})
        print(json.dumps(found[-1]), flush=True)
    return found


def by_others(model: Encoder, rows: Sequence[Ids]) -> Iterator[tuple[str, str, bytes]]:
    """(what was used, format, artifact) of other tools' static int8, from our own fp32 artifacts."""
    import onnx
    from ai_edge_quantizer import quantizer, recipe
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter({"input_ids": row[None], "attention_mask": np.ones_like(row)[None]} for row in rows)

        def get_next(self) -> Any:
            return next(self.left, None)

    plain = exporter("onnx").export(model, ("fp32",), LENGTHS)["fp32"]
    for per_channel in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "made.onnx")
            quantize_static(
                onnx.load_from_string(plain),
                path,
                Reader(),
                op_types_to_quantize=["MatMul", "Gemm", "Add", "Sum", "Softmax", "LayerNormalization", "Gather"],
                per_channel=per_channel,
                weight_type=QuantType.QInt8,
                reduce_range=devices.load(detect()).int8.endswith("s7"),
            )
            yield (
                f"ONNX Runtime quantize_static, MinMax{', per channel' if per_channel else ''}",
                "onnx",
                path.read_bytes(),
            )
    longest = max(LENGTHS)
    work = quantizer.Quantizer(litert(model, longest), recipe.static_wi8_ai8())
    given = [dict(zip(("input_ids", "attention_mask"), padded([row], 0, longest), strict=True)) for row in rows]
    ranges = work.calibrate({f"tokens_{longest}": given})
    yield "ai-edge-quantizer static_wi8_ai8, MinMax", "tflite", bytes(work.quantize(ranges).quantized_model)


def by_us(model: Encoder, rows: Sequence[Ids]) -> Iterator[tuple[str, str, bytes]]:
    """(what is in integers, format, artifact) of our own static int8 of TFLite, if nothing were spared."""
    from ai_edge_quantizer.qtyping import TFLOperationName

    from edgelm.exporters import tflite_quantize, tflite_static

    converted, linear = litert(model, max(LENGTHS)), "FULLY_CONNECTED"
    kinds = {
        "linear layers": (linear,),
        "linear layers and GELU": (linear, "GELU"),
        "linear layers, GELU, products and softmax of attention": (linear, "GELU", "BATCH_MATMUL", "SOFTMAX"),
        "linear layers, GELU and sums": (linear, "GELU", "ADD"),
    }
    for name, operators in kinds.items():
        known = tuple(TFLOperationName[operator] for operator in operators)
        with patch.object(tflite_static, "TOLERANCE", 1e9), patch.object(tflite_quantize, "STATIC", known):
            yield f"edgelm, none spared: {name}", "tflite", tflite_static.calibrated(converted, rows)[0]


def litert(model: Encoder, tokens: int) -> bytes:
    """The module as litert-torch converts it, with one signature."""
    import litert_torch

    class Named(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": model(input_ids, attention_mask)}

    inputs = {name: torch.ones(1, tokens, dtype=torch.int32) for name in ("input_ids", "attention_mask")}
    converted = litert_torch.signature(f"tokens_{tokens}", Named().eval(), sample_kwargs=inputs).convert()
    return bytes(converted.model_content())


def full() -> list[dict[str, Any]]:
    """DistilBERT-base in every precision; what int8-dynamic of both formats costs, in a process of its own."""
    BUILT.mkdir(parents=True, exist_ok=True)
    script = "import sys; sys.path.insert(0, 'benchmarks'); import export; export.both()"
    started = time.perf_counter()
    child = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True)
    found = json.loads(child.stdout.strip().splitlines()[-1])
    found["cost"]["seconds_with_imports"] = time.perf_counter() - started
    return [found]


def both() -> None:
    """Write every artifact of ``FULL`` into ``BUILT``; what int8-dynamic alone takes goes to standard output."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    model, reports = Encoder(FULL).eval(), list[Report]()
    integers = devices.load(detect()).int8
    started, kept = time.perf_counter(), dict[str, int]()
    for form in ("onnx", "tflite"):
        made = exporter(form).export(model, ("int8-dynamic",), LENGTHS, int8=integers, tell=reports.append)
        _keep(form, made, kept)
    cost = {
        "seconds": time.perf_counter() - started,
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    rest: tuple[Precision, ...] = ("fp32", "fp16", "int4-weights")
    for form in ("onnx", "tflite"):
        _keep(form, exporter(form).export(model, rest, LENGTHS, int8=integers, tell=reports.append), kept)
    one = exporter("tflite").export(model, ("int8-dynamic",), LENGTHS[-1:], tell=reports.append)["int8-dynamic"]
    found = {"parameters": parameters(model), "bytes": kept, "one_signature": len(one), "cost": cost}
    print(json.dumps(found))


def _keep(form: str, made: dict[Precision, bytes], kept: dict[str, int]) -> None:
    for precision, artifact in made.items():
        with staged(BUILT / f"{precision}.{form}") as staging:
            staging.write_bytes(artifact)
        kept[f"{precision} {form}"] = len(artifact)


def speed() -> list[dict[str, Any]]:
    """Median milliseconds of every artifact of ``full`` at each length, in turn, and what they are of LiteRT's int8."""
    names = sorted(path.name for path in BUILT.iterdir())
    random = np.random.default_rng(0)
    with ExitStack() as stack:
        sessions = dict[str, Session]()
        for name in names:
            form = name.rpartition(".")[2]
            sessions[name] = engine(ENGINES[form]).load((BUILT / name).read_bytes(), threads=1)
            stack.callback(sessions[name].close)
        inputs = {tokens: random.integers(0, FULL.vocab_size, (1, tokens), np.int32) for tokens in TIMED}
        samples = {tokens: {name: list[int]() for name in names} for tokens in TIMED}
        for turn in range(WARMUP + ROUNDS):  # all lengths in each, so that what disturbs the machine disturbs all
            for tokens, ids in inputs.items():
                for name, session in sessions.items():
                    session.run(ids, np.ones_like(ids))
                    start = time.perf_counter_ns()
                    session.run(ids, np.ones_like(ids))
                    if turn >= WARMUP:
                        samples[tokens][name].append(time.perf_counter_ns() - start)
    for tokens, found in samples.items():
        print(tokens, {name: round(statistics.median(values) / 1e6, 2) for name, values in found.items()}, flush=True)
    return [{"tokens": tokens, "ns": found} for tokens, found in samples.items()]


if __name__ == "__main__":
    main()
