"""A manifest and a profile made by hand, with figures as a real build gives them."""

from __future__ import annotations

import msgspec
import numpy as np

from edgelm.bundle import Bundle
from edgelm.manifest import (
    Baseline,
    Format,
    Machine,
    Manifest,
    ModelInfo,
    Parity,
    Precision,
    Score,
    Variant,
)
from edgelm.runs import Conditions, Fresh, Profile, Run

LENGTHS = (16, 32, 64, 128)
_HEAD_DIM = 8

_MEDIANS = {
    ("pytorch", "fp32"): (20.3, 25.2, 33.1, 51.0),
    ("onnxruntime", "fp32"): (4.12, 6.03, 9.4, 17.2),
    ("onnxruntime", "int8-dynamic"): (1.31, 1.93, 3.22, 6.11),
    ("litert", "fp32"): (3.71, 5.2, 9.1, 16.5),
    ("litert", "int8-dynamic"): (0.92, 1.44, 2.63, 5.21),
}
_MEGABYTES = {
    ("pytorch", "fp32"): 716,
    ("onnxruntime", "fp32"): 231,
    ("onnxruntime", "int8-dynamic"): 112,
    ("litert", "fp32"): 214,
    ("litert", "int8-dynamic"): 96,
}


def machine() -> Machine:
    return Machine(
        arch="x86_64",
        system="Linux 6.18.44",
        cpu="Intel(R) Xeon(R) Processor",
        isa=("amx_int8", "avx2", "avx512_vnni"),
        cores=2,
        memory_bytes=25_276_063_744,
        versions={"python": "3.11.7", "edgelm": "0.1.0", "onnxruntime": "1.32.0", "ai-edge-litert": "2.3.0"},
    )


def variant(
    engine: str,
    artifact: Format,
    precision: Precision,
    size: int,
    *,
    agreement: float = 0.981,
    accuracy: float = 0.893,
    difference: float = 0.31,
    matching: float = 0.996,
) -> Variant:
    parity = Parity(
        rows=872,
        max_abs_diff=difference,
        agreement=matching,
        kl=3.1e-4,
        hostile_rows=9,
        hostile_max_abs_diff=difference,
    )
    return Variant(
        engine=engine,
        format=artifact,
        precision=precision,
        file=f"model-{precision}.{artifact}",
        bytes=size,
        sha256=f"{size:064x}",
        lengths=LENGTHS if artifact == "tflite" else (),
        parity=parity,
        agreement=agreement,
        score=Score(metric="accuracy", value=accuracy, n=872),
    )


def manifest() -> Manifest:
    return Manifest(
        schema="edgelm.manifest/1",
        edgelm="0.1.0",
        created="2026-01-24T11:32:00Z",
        task="text-classification",
        labels=("negative", "positive"),
        max_tokens=128,
        pad_token_id=0,
        device="x86_64-avx512-vnni",
        model=ModelInfo(
            source="models/sst2-teacher",
            parameters=17_412_098,
            dim=768,
            heads=(8, 7, 6, 6, 4, 3),
            ffn=(1536, 1280, 1024, 768, 640, 512),
            vocab=8123,
        ),
        baseline=Baseline(bytes=267_820_000, parameters=66_955_010, score=Score(metric="accuracy", value=0.899, n=872)),
        variants=(
            variant("onnxruntime", "onnx", "fp32", 69_831_200, accuracy=0.896, difference=4.1e-6, matching=1.0),
            variant("onnxruntime", "onnx", "int8-dynamic", 18_022_400),
            variant("litert", "tflite", "fp32", 70_120_448, accuracy=0.896, difference=3.8e-6, matching=1.0),
            variant("litert", "tflite", "int8-dynamic", 17_796_608, agreement=0.979),
        ),
    )


def downloads() -> dict[str, int]:
    """What each file takes of a deflated bundle: a tenth less than on disk."""
    return {variant.file: variant.bytes * 9 // 10 for variant in manifest().variants}


def run(engine: str, precision: str, tokens: int, samples_ns: tuple[int, ...], peak_rss_bytes: int = 0) -> Run:
    return Run(
        engine=engine,
        precision=precision,
        tokens=tokens,
        batch=1,
        threads=2,
        warmup=5,
        samples_ns=samples_ns,
        before=Conditions(load=1.42),
        after=Conditions(load=0.61),
        fresh=Fresh(peak_bytes=peak_rss_bytes) if peak_rss_bytes else None,
    )


def loaded(profile: Profile, load: float) -> Profile:
    """The same, measured on a machine that had so much to do."""
    runs = tuple(msgspec.structs.replace(run, before=Conditions(load=load)) for run in profile.runs)
    return msgspec.structs.replace(profile, runs=runs)


def profile() -> Profile:
    random = np.random.default_rng(0)
    runs = []
    for key, medians in _MEDIANS.items():
        for tokens, median in zip(LENGTHS, medians, strict=True):
            noise = 1 + random.gamma(2.0, 0.012, size=400)
            noise[:: 97 if key[0] == "litert" else 211] *= 1.7
            samples = tuple(int(value) for value in median * 1e6 * noise)
            runs.append(run(*key, tokens, samples, _MEGABYTES[key] * 1_000_000))
    return Profile(
        schema="edgelm.profile/2",
        edgelm="0.1.0",
        machine=machine(),
        runs=tuple(runs),
    )


def layer_macs(bundle: Bundle, tokens: int) -> dict[str, int]:
    """Multiply-adds of each layer of the random DistilBERT; the last one computes the row of [CLS] alone."""
    model, labels = bundle.manifest.model, len(bundle.manifest.labels)
    found = {"embedding": 0}
    for index, (heads, ffn) in enumerate(zip(model.heads, model.ffn, strict=True)):
        width, rows = heads * _HEAD_DIM, 1 if index == len(model.heads) - 1 else tokens
        projections = 2 * model.dim * width * (tokens + rows)  # k and v of every token, q and out of the rows
        found[f"attention {index}"] = projections + 2 * rows * tokens * width
        found[f"ffn {index}"] = 2 * model.dim * ffn * rows
    return found | {"head": model.dim * (model.dim + labels)}
