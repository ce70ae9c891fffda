"""A small random model with every shape that pruning leaves, exported once a session to every format and precision."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_keras
import torch

from edgelm.exporters import Report, exporter, names
from edgelm.manifest import Precision
from edgelm.model import Encoder, EncoderConfig
from edgelm.runtimes import Ids, Session, engine

LENGTHS = (8, 16, 32, 64)
VARIANTS = [(form, precision) for form in names() for precision in exporter(form).PRECISIONS]

Artifacts = dict[tuple[str, Precision], bytes]


@pytest.fixture(scope="session")
def model() -> Encoder:
    """Different widths in every layer, a layer without heads, a layer without neurons, and a large vocabulary."""
    torch.manual_seed(0)
    config = EncoderConfig(
        vocab_size=20_000,
        dim=64,
        head_dim=16,
        heads=(4, 0, 3),
        ffn=(96, 32, 0),
        max_positions=80,
        labels=("a", "b", "c"),
    )
    made = Encoder(config)
    with torch.no_grad():
        for name, parameter in made.named_parameters():  # so that the logits differ by about 0.5 from row to row
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif "embeddings" not in name:
                parameter.mul_(2.0)
    return made.eval()


@pytest.fixture(scope="session")
def reports() -> list[Report]:
    return []


@pytest.fixture(scope="session")
def artifacts(model: Encoder, reports: list[Report], calibration: list[Ids]) -> Artifacts:
    return {
        (form, precision): artifact
        for form in names()
        for precision, artifact in exporter(form)
        .export(model, exporter(form).PRECISIONS, LENGTHS, calibration=calibration, tell=reports.append)
        .items()
    }


@pytest.fixture(scope="session")
def calibration(model: Encoder) -> list[Ids]:
    """Rows to calibrate on; none of them is compared."""
    random = np.random.default_rng(9)
    return [random.integers(0, model.config.vocab_size, 2 + index % 63, np.int32) for index in range(256)]


@pytest.fixture(params=VARIANTS, ids=[" ".join(variant) for variant in VARIANTS])
def variant(request: pytest.FixtureRequest, artifacts: Artifacts) -> tuple[str, Precision, bytes]:
    form, precision = request.param
    return form, precision, artifacts[form, precision]


@pytest.fixture
def session(variant: tuple[str, Precision, bytes]) -> Iterator[Session]:
    loaded = engine(exporter(variant[0]).ENGINE).load(variant[2], threads=1)
    yield loaded
    loaded.close()


@pytest.fixture(scope="session")
def rows(model: Encoder) -> list[Ids]:
    """Rows of mixed lengths, with the shortest and the longest that every artifact takes among them."""
    random = np.random.default_rng(0)
    lengths = (2, 7, 16, 20, 64, 33, 8, 3) * 3
    return [random.integers(0, model.config.vocab_size, n, np.int32) for n in lengths]


@pytest.fixture(scope="session")
def tensorflow() -> Any:
    """TensorFlow, imported as edgelm does it: without its chatter."""
    if importlib.util.find_spec("tensorflow") is None or importlib.util.find_spec("tf2onnx") is None:
        pytest.skip("TensorFlow is not installed: pip install 'edgelm[tensorflow]'")
    importlib.import_module("edgelm.exporters.tensorflow")
    return importlib.import_module("tensorflow")


@pytest.fixture(scope="session")
def keras_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint that the Keras model below is read from."""
    return tiny_keras.checkpoint(tmp_path_factory.mktemp("keras") / "checkpoint")


@pytest.fixture(scope="session")
def keras_model(keras_checkpoint: Path, tensorflow: Any) -> Any:
    """A tiny DistilBERT by KerasHub, with a head."""
    if importlib.util.find_spec("keras_hub") is None:
        pytest.skip("KerasHub is not installed: pip install 'edgelm[dev]'")
    return tiny_keras.classifier(keras_checkpoint)


@pytest.fixture(scope="session")
def keras_file(keras_model: Any, keras_checkpoint: Path) -> Path:
    """The same as a file, with tokenizer and labels beside it."""
    path = keras_checkpoint.parent / "model" / "model.keras"
    tiny_keras.save(keras_model, path, keras_checkpoint)
    return path
