"""edgelm: one bundle of an unpruned checkpoint, or of a compressed one, and each of its variants alone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec.structs import replace

import edgelm
from edgelm.bundle import MANIFEST, Bundle, write
from peer import Bind, Call, Request

__all__ = ["PACKAGES", "export", "load", "prepare"]

PACKAGES = ("edgelm", "onnxruntime", "ai-edge-litert")
WHOLE, TEXTS = "auto", "texts"
_FILE = "model.edgelm"
_LENGTHS = (16, 32, 64, 128, 256)


def prepare(kind: str, checkpoint: Path, folder: Path, rows: Sequence[Request]) -> None:
    """Export everything into one bundle, or take a bundle as it is; for a variant, leave the others out."""
    del rows
    whole = folder.parent / WHOLE / _FILE
    if kind == TEXTS:
        shutil.copyfile(whole, folder / _FILE)
    elif kind != WHOLE:
        _narrow(Bundle(whole), kind, folder / _FILE)
    elif checkpoint.is_file():
        shutil.copyfile(checkpoint, folder / _FILE)
    else:
        from edgelm.devices.machine import detect

        export(checkpoint, folder / _FILE, device=detect(), lengths=_LENGTHS)


def load(kind: str, folder: Path, threads: int) -> Bind:
    """As an app loads it: what is fastest here of what the bundle has. Texts of a list are answered one by one."""
    model = edgelm.load(folder / _FILE, threads=threads)

    def bind(request: Request) -> Call:
        texts = list(request.texts)
        if kind == TEXTS:
            number = {label: index for index, label in enumerate(model.labels)}
            return lambda: np.array([number[answer["label"]] for answer in model(texts)])
        windows = model.tokenizer.windows(texts)  # its own: a compressed model may have a smaller vocabulary
        return lambda: np.stack([model.run(window) for window in windows])

    return bind


def export(checkpoint: Path, out: Path, *, device: str, lengths: Sequence[int]) -> None:
    """Write a bundle of both formats, in int8-dynamic and fp32."""
    from edgelm import build, compression, recipe

    # a model of random weights has logits that say nothing; what is lost is measured, and told
    loose = {"max_abs_diff": 1e3, "agreement": 0.0, "kl": 1e3, "accuracy_loss": 100.0}
    wanted = {"device": device, "precisions": ["int8-dynamic", "fp32"], "lengths": list(lengths)}
    located = recipe.of(export=wanted, gates={"fp32": loose, "int8-dynamic": loose}).with_model(str(checkpoint))
    build.export(compression.compress(located), located, out)


def _narrow(whole: Bundle, kind: str, out: Path) -> None:
    """A bundle with the one variant ``ENGINE PRECISION``."""
    variants = tuple(v for v in whole.manifest.variants if f"{v.engine} {v.precision}" == kind)
    left_out = {n for v in whole.manifest.variants for n in v.files if v not in variants} | {MANIFEST}
    files = {name: whole.read(name) for name in whole.downloads if name not in left_out}
    write(out, replace(whole.manifest, variants=variants), files)
