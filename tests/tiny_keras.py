"""The tiny DistilBERT in Keras: KerasHub's own implementation of the encoder, and a head built here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import tiny
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from edgelm.exporters.quiet import quiet

os.environ.setdefault("KERAS_BACKEND", "tensorflow")


def checkpoint(folder: Path) -> Path:
    """A random DistilBERT of one layer, with the ``vocab.txt`` beside it that KerasHub asks for."""
    tiny.distilbert(folder, n_layers=1)
    ids = Tokenizer.from_str(tiny.tokenizer_json().decode()).get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(ids, key=lambda piece: ids[piece])), encoding="utf-8")
    return folder


def classifier(
    folder: Path,
    names: tuple[str, str] = ("token_ids", "padding_mask"),
    length: int | None = None,
    *,
    by_token: bool = False,
    labels: int = len(tiny.LABELS),
) -> Any:
    """A Keras model of a checkpoint: KerasHub reads the encoder, and the head has the checkpoint's weights.

    Args:
        folder: the checkpoint.
        names: of the inputs.
        length: in tokens, where it takes one alone.
        by_token: the head is applied to every token, and not to the first alone.
        labels: how many.
    """
    import keras
    import keras_hub

    backbone = keras_hub.models.DistilBertBackbone.from_preset(str(folder))
    inputs = {name: keras.Input((length,), dtype="int32", name=name) for name in names}
    hidden = backbone(dict(zip(("token_ids", "padding_mask"), inputs.values(), strict=True)))
    pooler = keras.layers.Dense(backbone.hidden_dim, activation="relu", name="pre_classifier")
    head = keras.layers.Dense(labels, name="classifier")
    model = keras.Model(inputs, head(pooler(hidden if by_token else hidden[:, 0, :])))
    theirs = load_file(folder / "model.safetensors")
    for layer in (pooler, head):
        layer.set_weights([theirs[f"{layer.name}.weight"].T, theirs[f"{layer.name}.bias"]])
    return model


def save(model: Any, path: Path, folder: Path) -> None:
    """Save a model, with the checkpoint's tokenizer and labels where ``edgelm export`` looks for them."""
    path.parent.mkdir(exist_ok=True)
    with quiet():
        model.save(path) if path.suffix else model.export(path, verbose=False)
    for name in ("tokenizer.json", "config.json"):
        shutil.copy(folder / name, path.parent / name)
