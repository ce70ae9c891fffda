"""The bundles of the tests: made where torch is, and read on devices, where it is not.

usage: python tests/bundles.py FOLDER        each as NAME.edgelm, and in NAME.json what its variants answer here
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import product
import tiny
from numpy.typing import NDArray

import edgelm
from edgelm.bundle import Bundle, staged
from edgelm.manifest import Variant
from edgelm.predictor import Model
from edgelm.runtimes import engine

KINDS = ("bert", "distilbert", "roberta")
ANY = {"max_abs_diff": 1e3, "agreement": 0.0, "kl": 1e3, "accuracy_loss": 100.0}  # the weights are random
FOUR, IN_FLOAT = ("onnxruntime", "int4-weights"), "in float"


def rounds(isa: Collection[str]) -> str:
    """How ONNX Runtime rounds activations before a product with four-bit weights, by the processor's extensions."""
    return "int8 by row" if "asimddp" in isa else "int8 by block" if "avx2" in isa else "float"


class Answers(msgspec.Struct, frozen=True):
    """What a variant answers.

    Attributes:
        outputs: the engine's, of each window that it read.
        answers: the task's, to each input.
    """

    outputs: list[Any]
    answers: list[Any]

    def arrays(self) -> list[NDArray[np.float32]]:
        return [np.asarray(output, np.float32) for output in self.outputs]


def of_tiny(checkpoint: Path, out: Path) -> Path:
    """A random DistilBERT that classifies, in every format, in the precisions of the device."""
    return _exported(checkpoint, out, {"device": "generic-x86_64", "lengths": [8, 16, 32]})


def of_task(kind: str, task: str, out: Path) -> Path:
    """A random model in every format and precision; its checkpoint stays beside it.

    For x86 without VNNI, whose weights are within 7 bits: with 8, such a machine would be the one that computes
    something else.
    """
    from edgelm.exporters import onnx

    checkpoint, texts = tiny.saved(kind, task, out.with_suffix("")), out.with_suffix(".jsonl")
    pairs = [f"{first} {second}".strip() for first in tiny.TEXTS for second in tiny.TEXTS]
    lines = [{"text": text, "question": tiny.TEXTS[4], "context": f"{text} it"} for text in pairs]
    texts.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    features = {"pooling": "mean", "normalize": True} if task == "feature-extraction" else None
    export = {"device": "generic-x86_64", "lengths": [16, 32], "precisions": onnx.PRECISIONS}
    return _exported(checkpoint, out, export, data={"dev": str(texts)}, features=features)


def answered(path: Path, variant: Variant) -> Answers:
    """Load a variant, which tests it with the golden inputs, and ask."""
    with edgelm.load(path, engine=variant.engine, precision=variant.precision, threads=1) as model:
        return asked(model)


def answered_in_float(path: Path, variant: Variant) -> Answers:
    """The same of ONNX Runtime's ``int4-weights`` with activations that are not rounded."""
    import onnx

    bundle = Bundle(path)
    artifact = onnx.load_model_from_string(bytes(bundle.read(variant.file)))
    for node in artifact.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 1
    session = engine(variant.engine).load(artifact.SerializeToString(), threads=1)
    with Model(bundle.manifest, bundle.tokenizer, variant, session, {}) as model:
        return asked(model)


def asked(model: Model) -> Answers:
    """What a model answers to the texts."""
    inputs: list[Any] = [text for text in tiny.TEXTS if text]
    if (mask := model.manifest.mask_token_id) is not None:
        inputs = [f"{text} {model.tokenizer.piece(mask)}" for text in inputs]
    if model.manifest.task == "question-answering":
        inputs = [{"question": inputs[4], "context": text} for text in inputs]
    cut = model.task.cut(model.tokenizer, inputs)
    outputs = [model.run(window).tolist() for windows in cut for window in windows]
    return Answers(outputs, model(inputs))


def _exported(checkpoint: Path, out: Path, export: dict[str, Any], **keys: Any) -> Path:
    from edgelm import build, compression, recipe
    from edgelm.exporters import onnx

    gates = {precision: ANY for precision in onnx.PRECISIONS}
    located = recipe.of(export=export, gates=gates, **keys).with_model(str(checkpoint))
    build.export(compression.compress(located), located, out)
    return out


def made(folder: Path) -> Iterator[Path]:
    """The bundles, one by one."""
    yield of_tiny(tiny.distilbert(folder / "checkpoint"), folder / "tiny.edgelm")
    for kind in KINDS:
        for task in tiny.HEADS:
            yield of_task(kind, task, folder / f"{kind}-{task}.edgelm")


def main(folder: Path) -> None:
    """Make them all, and write what each variant answers here."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["EDGELM_CACHE"] = str(folder / "cache")
    product.make(folder)
    for path in made(folder):
        variants = Bundle(path).manifest.variants
        found = {variant.file: answered(path, variant) for variant in variants}
        fours = [variant for variant in variants if (variant.engine, variant.precision) == FOUR]
        found |= {f"{variant.file} {IN_FLOAT}": answered_in_float(path, variant) for variant in fours}
        with staged(path.with_suffix(".json")) as staging:
            staging.write_bytes(msgspec.json.encode(found))
        print(path, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
