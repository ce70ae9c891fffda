"""The recipe: a TOML file that says what to build. It is saved in the bundle.

Paths in it are relative to the recipe. A key that is not known is an error, never ignored.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edgelm.errors import RecipeError
from edgelm.manifest import Format, Precision
from edgelm.schema import Strict, decode, to_dict

__all__ = [
    "DEFAULT_GATES",
    "LENGTHS",
    "Budget",
    "Data",
    "Distill",
    "Export",
    "Features",
    "Gate",
    "Located",
    "Prune",
    "Recipe",
    "Scores",
    "Sparsity",
    "Vocab",
    "dump",
    "of",
    "override",
    "read",
]

LENGTHS = (16, 32, 64, 128)
"""Of signatures, where the recipe does not say."""

Positive = Annotated[int, Meta(ge=1)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Scores = Literal["surgeon", "fisher", "taylor", "magnitude"]


class Data(Strict, frozen=True, kw_only=True):
    """Where texts come from; paths are relative to the recipe. JSON lines with ``text`` and ``label``.

    Attributes:
        train: texts for importance scores, least-squares fitting and distillation.
        dev: held-out texts that parity and accuracy are measured on.
        unlabelled: further texts for distillation, one a line, or JSON lines with ``text``.
        min_tokens: texts of ``train`` with fewer are left out, special tokens counted: of a set of phrases and
            sentences, the phrases say little of how a sentence is read.
    """

    train: str | None = None
    dev: str | None = None
    unlabelled: tuple[str, ...] = ()
    min_tokens: Annotated[int, Meta(ge=0)] = 0


class Features(Strict, frozen=True, kw_only=True):
    """One vector for a text, whatever the checkpoint's head.

    Attributes:
        pooling: the ``mean`` of all tokens' states, or that of the first (``cls``).
        normalize: to length 1.
    """

    pooling: Literal["mean", "cls"]
    normalize: bool = False


class Vocab(Strict, frozen=True, kw_only=True):
    """Vocabulary trimming: keep pieces that occur in the training text, and single characters.

    Attributes:
        min_count: a piece is kept if it occurs at least this often.
        rows: at most so many rows in all; the rarest pieces go first.
        characters: kept besides: ``all``, so that no word becomes ``[UNK]`` that was not before, or only those of
            ``ascii``, which is smaller and suits texts in English alone.
        share: a piece that goes uses the row of the kept one that is most like it, if the cosine of their embeddings is
            at least this; with 1, none does, and words are cut into smaller pieces instead.
    """

    min_count: Positive = 1
    rows: Positive | None = None
    characters: Literal["all", "ascii"] = "all"
    share: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.3


class Prune(Strict, frozen=True, kw_only=True):
    """Structured pruning. Give ``macs``, or one shape for every layer (``heads``, ``ffn``).

    Attributes:
        macs: divide the multiply-accumulates of the encoder's linear layers by this; widths differ by layer.
        heads: keep this many attention heads in every layer.
        ffn: keep this many FFN neurons in every layer.
        layers: keep only these layers, counted from 0, or so many of them, the ones that score best.
        strides: of each kept layer: of the rows that it reads, it computes the first of every so many, so that those
            after it have fewer, and ``macs`` counts them so; the last one's is 1. If not given, all compute all.
        by: the score that decides; see ``edgelm.compress.importance``.
        multiple_of: FFN widths are rounded to a multiple of this; if not given, to what the engines' kernels like on
            ``export.device``, or on this machine (``width_multiple`` of its profile).
        samples: calibration texts to score on.
        seed: which of the calibration texts are taken.
    """

    macs: Annotated[float, Meta(ge=1.0)] | None = None
    heads: Positive | None = None
    ffn: Positive | None = None
    layers: Positive | tuple[Annotated[int, Meta(ge=0)], ...] | None = None
    strides: tuple[Positive, ...] | None = None
    by: Scores = "surgeon"
    multiple_of: Positive | None = None
    samples: Positive = 2048
    seed: int = 0


class Budget(Strict, frozen=True, kw_only=True):
    """What the result may cost: the widths are searched for it. At least one of ``p50_ms``, ``bytes``, ``points``.

    Attributes:
        p50_ms: median latency of a request, in milliseconds.
        tokens: length of that request.
        engine: that runs it; that of the first format that is exported, if not given.
        precision: of the artifact.
        threads: of the engine.
        bytes: size of the artifact.
        points: most percentage points of accuracy on ``data.dev`` that compression may lose.
        table: a latency table to plan by, measured on another machine; without it, one is measured on this machine.
    """

    p50_ms: Annotated[float, Meta(gt=0.0)] | None = None
    tokens: Annotated[int, Meta(ge=2)] = 32
    engine: Literal["onnxruntime", "litert"] | None = None
    precision: Precision = "int8-dynamic"
    threads: Positive = 1
    bytes: Positive | None = None
    points: Annotated[float, Meta(ge=0.0)] | None = None
    table: str | None = None


class Sparsity(Strict, frozen=True, kw_only=True):
    """Zeros among the weights, for a smaller download: nothing gets faster, and only deflated bundles get smaller.

    Attributes:
        share: of the weights of each matrix of the layers, those of the smallest magnitude.
        embeddings: the same of the word embeddings, which can lose more; ``share`` when not given.
    """

    share: Annotated[float, Meta(ge=0.0, lt=1.0)]
    embeddings: Annotated[float, Meta(ge=0.0, lt=1.0)] | None = None


class Distill(Strict, frozen=True, kw_only=True):
    """Distillation from the original.

    Attributes:
        epochs: passes over the training texts, new ones included.
        lr: peak learning rate of AdamW.
        batch: texts a step; batches hold texts of one length.
        warmup: share of the steps in which the learning rate rises from 0.
        temperature: of the softened logits [Hinton 2015].
        hidden: weight of the loss on the hidden states of every layer.
        dropout: probability, in the student.
        embeddings: whether the word embeddings are trained; a whole vocabulary of them is most of the work of a step,
            and unseen words are better left where the original has them.
        augment: new texts made of each one by replacing words by others of like meaning; it is trained on all of them.
        patience: score the dev texts after every epoch, keep the best weights, and end after so many scores in a row
            that are not better; without it, all epochs are run and the last weights are kept.
        seed: of the order of texts and the dropout.
    """

    epochs: Annotated[float, Meta(gt=0.0)] = 3.0
    lr: Annotated[float, Meta(gt=0.0)] = 5e-4
    batch: Positive = 32
    warmup: Fraction = 0.06
    temperature: Annotated[float, Meta(gt=0.0)] = 2.0
    hidden: Annotated[float, Meta(ge=0.0)] = 1.0
    dropout: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.1
    embeddings: bool = True
    augment: Annotated[int, Meta(ge=0)] = 0
    patience: Positive | None = None
    seed: int = 0


class Export(Strict, frozen=True, kw_only=True):
    """What to write. What is not given is the device profile's choice.

    Attributes:
        device: name of a device profile.
        formats: artifacts to write.
        precisions: of each format.
        lengths: token lengths of the TFLite signatures; the longest is the bundle's limit. If not given, those of
            ``LENGTHS`` that the model has positions for.
        compress: the variants in the bundle: ``deflate`` makes it smaller; with ``none`` they can be mapped in place.
    """

    device: str
    formats: tuple[Format, ...] | None = None
    precisions: tuple[Precision, ...] | None = None
    lengths: tuple[Annotated[int, Meta(ge=2)], ...] = LENGTHS
    compress: Literal["none", "deflate"] = "none"


class Gate(Strict, frozen=True, kw_only=True):
    """How far a variant may be from the original before the build fails.

    Attributes:
        max_abs_diff: largest absolute difference of any logit, on real and on hostile text.
        agreement: smallest share of real texts with the same label.
        kl: largest mean Kullback-Leibler divergence from the original's distribution, in nats.
        accuracy_loss: largest loss against the module it was exported from, in percentage points.
    """

    max_abs_diff: Annotated[float, Meta(ge=0.0)]
    agreement: Fraction
    kl: Annotated[float, Meta(ge=0.0)]
    accuracy_loss: Annotated[float, Meta(ge=0.0)]


DEFAULT_GATES: dict[Precision, Gate] = {
    "fp32": Gate(max_abs_diff=1e-3, agreement=1.0, kl=1e-5, accuracy_loss=0.0),
    "fp16": Gate(max_abs_diff=0.1, agreement=0.99, kl=1e-4, accuracy_loss=0.2),
    "int8-dynamic": Gate(max_abs_diff=2.0, agreement=0.97, kl=0.05, accuracy_loss=1.0),
    "int8-static": Gate(max_abs_diff=3.0, agreement=0.97, kl=0.05, accuracy_loss=1.0),
    "int4-weights": Gate(max_abs_diff=4.0, agreement=0.95, kl=0.1, accuracy_loss=2.0),
}


class Recipe(Strict, frozen=True, kw_only=True):
    """What to build, from which checkpoint, for which device.

    Attributes:
        schema: the version of this format.
        model: checkpoint folder, relative to the recipe, or hub id.
        data: the texts.
        features: read the checkpoint for its vectors.
        vocab: vocabulary trimming, if any.
        prune: structured pruning, if any.
        budget: what the result may cost, if that decides how much is pruned.
        sparsity: zeros among the weights, if any.
        distill: distillation, if any.
        export: what to write; not needed by ``edgelm compress``.
        gates: by precision; what is not given has the default.
    """

    schema: Literal["edgelm.recipe/1"]
    model: str | None = None
    data: Data = Data()
    features: Features | None = None
    vocab: Vocab | None = None
    prune: Prune | None = None
    budget: Budget | None = None
    sparsity: Sparsity | None = None
    distill: Distill | None = None
    export: Export | None = None
    gates: dict[Precision, Gate] = {}  # noqa: RUF012 - msgspec copies it for each instance

    def gate(self, precision: Precision) -> Gate:
        """The gate of a precision: the recipe's, or the default."""
        return self.gates.get(precision, DEFAULT_GATES[precision])


@dataclass(frozen=True)
class Located:
    """A recipe and the folder that its paths are relative to."""

    recipe: Recipe
    folder: Path

    def with_model(self, model: str) -> Located:
        """The same recipe for this checkpoint: a folder, from the current one, or a hub id."""
        path = Path(model)
        name = str(path.resolve()) if path.exists() else model
        return Located(msgspec.structs.replace(self.recipe, model=name), self.folder)

    def path(self, name: str) -> Path:
        """A path of the recipe, from the current folder."""
        return self.folder / name

    def model(self) -> str:
        """The checkpoint folder if there is one of this name, else the name itself, a hub id.

        Raises:
            RecipeError: the recipe names no model.
        """
        if self.recipe.model is None:
            raise RecipeError('the recipe names no model: expected model = "FOLDER" or a hub id')
        folder = self.path(self.recipe.model)
        return str(folder) if folder.exists() else self.recipe.model


def read(path: Path, overrides: Sequence[str] = ()) -> Located:
    """Read a recipe.

    Args:
        path: the TOML file.
        overrides: ``section.key=value``; the value is TOML, or a string when it is not.

    Raises:
        RecipeError: it cannot be read, or a key or value is wrong.
    """
    try:
        raw = path.read_bytes()
    except OSError as exc:
        raise RecipeError(f"{path}: cannot be read: {exc.strerror}; expected a recipe in TOML") from exc
    decode(raw, Recipe, source=str(path), error=RecipeError)
    return Located(override(tomllib.loads(raw.decode()), overrides, source=str(path)), path.parent)


def of(overrides: Sequence[str] = (), **keys: Any) -> Located:
    """A recipe from keys alone, its paths relative to the current folder; see ``read``.

    Args:
        overrides: as for ``read``.
        keys: the recipe's top-level keys; None counts as not given.
    """
    tree = {"schema": "edgelm.recipe/1", **{key: value for key, value in keys.items() if value is not None}}
    return Located(override(tree, overrides, source="the command line"), Path())


def override(tree: dict[str, Any], overrides: Sequence[str], *, source: str) -> Recipe:
    """A recipe from plain values, some of them replaced; see ``read``."""
    for item in overrides:
        key, separator, value = item.partition("=")
        *sections, leaf = key.strip().split(".")
        if not separator or not leaf:
            raise RecipeError(f"--set {item}: expected key=value, for instance distill.epochs=2")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise RecipeError(f"--set {item}: {section} is a value, not a section")
        node[leaf] = _value(value.strip())
    return decode(msgspec.json.encode(tree), Recipe, source=source, error=RecipeError)


def dump(recipe: Recipe) -> bytes:
    """A recipe as TOML, with every default written out and what is not given left out."""
    import tomli_w  # only who writes bundles needs it

    return tomli_w.dumps(_given(to_dict(recipe))).encode()


def _given(tree: Any) -> Any:
    """Without the keys whose value is None, which TOML cannot say."""
    if isinstance(tree, dict):
        return {key: _given(value) for key, value in tree.items() if value is not None}
    return tree


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
