"""The formats that cross the border: device profile, machine, and the manifest of a bundle.

Each names its own version in ``schema``. Sizes are in bytes, times in nanoseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta

from edgelm.schema import Strict

__all__ = [
    "Avoid",
    "Baseline",
    "Device",
    "External",
    "Figure",
    "Format",
    "Int8",
    "Machine",
    "Manifest",
    "ModelInfo",
    "Parity",
    "Precision",
    "Score",
    "TaskName",
    "Variant",
]

Format = str
"""``onnx``, ``tflite``, or what another package brings; see ``edgelm.exporters``."""
Precision = Literal["fp32", "fp16", "int8-dynamic", "int8-static", "int4-weights"]
Int8 = Literal["u8s8", "u8s7", "s8s8"]
"""Types of the activations and weights that ONNX Runtime multiplies; ``s7`` are signed weights within -64 and 64."""
TaskName = Literal[
    "text-classification", "token-classification", "question-answering", "fill-mask", "feature-extraction"
]
"""As transformers names its pipelines."""


class Figure(Strict, frozen=True, kw_only=True):
    """A published or measured figure of a device, and where it comes from."""

    name: str
    value: float
    unit: str
    source: str


class Avoid(Strict, frozen=True, kw_only=True):
    """A precision that must not be used on a device, and why.

    Attributes:
        precision: which.
        reason: what it would do there, as one clause.
        source: where that was measured or read.
    """

    precision: Precision
    reason: str
    source: str = ""


class Device(Strict, frozen=True, kw_only=True):
    """A target device.

    Attributes:
        schema: the version of this format.
        name: as on the command line; the file's name.
        description: one line for people.
        arch: instruction set family.
        isa: extensions the device has that matter to the engines' kernels, as Linux names them in /proc/cpuinfo.
        formats: what to write for it, best first.
        precisions: what to write for it, best first.
        threads: what the runtime should use there.
        width_multiple: FFN widths that its kernels like are multiples of this.
        int8: types of ONNX Runtime's integer products there; those that are exact on every processor if not given.
        avoid: precisions that must not be used, with reasons.
        figures: known figures, each with its source; what is unknown is absent.
    """

    schema: Literal["edgelm.device/1"]
    name: str
    description: str
    arch: Literal["x86_64", "arm64", "wasm"]
    isa: tuple[str, ...] = ()
    formats: tuple[Format, ...]
    precisions: tuple[Precision, ...]
    threads: Annotated[int, Meta(ge=1)]
    width_multiple: Annotated[int, Meta(ge=1)]
    int8: Int8 = "u8s7"
    avoid: tuple[Avoid, ...] = ()
    figures: tuple[Figure, ...] = ()


class Machine(Strict, frozen=True, kw_only=True):
    """The machine a profile was measured on.

    Attributes:
        arch: ``x86_64``, ``arm64``, …
        system: operating system and release.
        cpu: the processor's name, as the system gives it.
        isa: the extensions it reports that matter to the engines' kernels.
        cores: physical cores that this process may use.
        memory_bytes: that the system has.
        versions: of Python, edgelm and the engines.
        gpus: names of NVIDIA's GPUs, by their numbers.
    """

    arch: str
    system: str
    cpu: str
    isa: tuple[str, ...]
    cores: int
    memory_bytes: int
    versions: dict[str, str]
    gpus: tuple[str, ...] = ()


class Score(Strict, frozen=True, kw_only=True):
    """A task metric.

    Attributes:
        metric: ``accuracy``, ``f1``, ``exact_match``, ``spearman`` or ``perplexity``.
        value: between 0 and 1, a perplexity excepted.
        n: rows it was measured on; of a perplexity, tokens.
    """

    metric: str
    value: float
    n: int


class Parity(Strict, frozen=True, kw_only=True):
    """How close a variant is to the PyTorch module it was exported from.

    Attributes:
        rows: real texts compared, each both unpadded and padded.
        max_abs_diff: largest absolute difference of any logit, or number of a vector, on them.
        agreement: share of them with the same label; of tokens, places or pieces where that is what the task decides;
            of vectors, their mean cosine.
        kl: mean Kullback-Leibler divergence from the module's distributions, in nats; 0 of vectors.
        hostile_rows: hostile inputs compared (empty, one token, over-long, emoji).
        hostile_max_abs_diff: largest absolute difference of any logit on those.
    """

    rows: int
    max_abs_diff: float
    agreement: float
    kl: float
    hostile_rows: int
    hostile_max_abs_diff: float


class External(Strict, frozen=True, kw_only=True):
    """Weights that lie beside their model, in a file of their own.

    Attributes:
        file: its name in the bundle, and in the model that refers to it.
        sha256: of its content, in hexadecimal.
    """

    file: str
    sha256: str


class Variant(Strict, frozen=True, kw_only=True):
    """One artifact in one precision.

    Attributes:
        engine: what runs it.
        format: of the artifact.
        precision: of the artifact.
        file: its name in the bundle.
        bytes: its size, external weights included.
        sha256: of the file's content, in hexadecimal.
        external: its weights, where they do not fit into its file.
        lengths: token lengths it takes; empty when it takes any.
        parity: against the module it was exported from.
        agreement: with the original, before compression, on the dev texts; as that of ``Parity``.
        score: on the recipe's dev texts, if there were any with labels.
    """

    engine: str
    format: Format
    precision: Precision
    file: str
    bytes: int
    sha256: str
    lengths: tuple[int, ...]
    parity: Parity
    agreement: float
    score: Score | None = None
    external: External | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Names in the bundle of all that belongs to it, its own first."""
        return (self.file,) if self.external is None else (self.file, self.external.file)

    @property
    def digest(self) -> str:
        """The hashes of all of its content."""
        return self.sha256 if self.external is None else f"{self.sha256} {self.external.sha256}"

    def taken(self, downloads: Mapping[str, int]) -> int:
        """Bytes that it takes in the bundle, given those of each entry."""
        return sum(downloads[name] for name in self.files)


class ModelInfo(Strict, frozen=True, kw_only=True):
    """The module that the variants were exported from.

    Attributes:
        source: the checkpoint, as the recipe named it.
        parameters: how many.
        dim: hidden width; 0 of a model of another framework, of which it is not known.
        heads: of each layer; empty of such a model.
        ffn: neurons of each layer; the same.
        vocab: rows of the word embeddings; of such a model, ids of its tokenizer.
        strides: of each layer: of the rows that it reads, it computes the first of every so many; empty if all.
    """

    source: str
    parameters: int
    dim: int
    heads: tuple[int, ...]
    ffn: tuple[int, ...]
    vocab: int
    strides: tuple[int, ...] = ()


class Baseline(Strict, frozen=True, kw_only=True):
    """The original, before compression.

    Attributes:
        bytes: size of the checkpoint's weights on disk.
        parameters: how many.
        score: of the original, on the dev texts, if they had labels.
        engine: what ran it.
        precision: that it is in.
    """

    bytes: int
    parameters: int
    score: Score | None = None
    engine: str = "pytorch"
    precision: Precision = "fp32"


class Manifest(Strict, frozen=True, kw_only=True):
    """What is in a bundle.

    Attributes:
        schema: the version of this format.
        edgelm: the version that wrote it.
        created: UTC, ISO 8601.
        task: what the outputs mean.
        labels: by class index, where the task has classes.
        multi_label: each label is a question of its own.
        mask_token_id: of ``fill-mask``.
        max_tokens: longer inputs are cut to this many tokens, special ones included, on every engine.
        pad_token_id: what inputs are padded with.
        device: the target it was built for.
        model: the module it was exported from.
        baseline: the original.
        variants: the artifacts.
    """

    schema: Literal["edgelm.manifest/1"]
    edgelm: str
    created: str
    task: TaskName
    labels: tuple[str, ...]
    multi_label: bool = False
    mask_token_id: int | None = None
    max_tokens: int
    pad_token_id: int
    device: str
    model: ModelInfo
    baseline: Baseline
    variants: tuple[Variant, ...]
