"""On a real GPU: every bundle answers as on the CPU, by CUDA alone, one by one, together, and from threads.

The bundles are those of ``tests/bundles.py``, in the folder named by EDGELM_BUNDLES; ``make test-gpu`` makes them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bundles
import msgspec
import numpy as np
import pytest
import tiny

import edgelm
from edgelm import runtimes, verify
from edgelm.bundle import Bundle
from edgelm.errors import DeviceUnavailable
from edgelm.predictor import Model

pytestmark = pytest.mark.gpu

FLOAT = ("fp16", "fp32")
CLOSE = {"fp16": 1e-2, "fp32": 1e-4}  # of the largest logit
TASKS = [f"{kind}-{task}" for kind in bundles.KINDS for task in tiny.HEADS]


@pytest.fixture(scope="session")
def made() -> Path:
    """The folder with the bundles; the tests are skipped, and say so, where there is no GPU or no folder."""
    reason = runtimes.engine("onnxruntime").missing("cuda")
    if reason:
        pytest.skip(reason)
    if "EDGELM_BUNDLES" not in os.environ:
        pytest.skip("EDGELM_BUNDLES is not set: expected the folder that tests/bundles.py made")
    return Path(os.environ["EDGELM_BUNDLES"])


@pytest.fixture(params=FLOAT)
def model(made: Path, request: pytest.FixtureRequest) -> Iterator[Model]:
    path = made / "distilbert-text-classification.edgelm"
    with edgelm.load(path, device="cuda", precision=request.param) as loaded:
        yield loaded


def texts(count: int) -> list[str]:
    random, words = np.random.default_rng(0), " ".join(tiny.TEXTS).split()
    return [" ".join(random.choice(words, size)) for size in random.integers(1, 20, count)]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("precision", FLOAT)
def test_every_task_answers_as_on_the_cpu(made: Path, name: str, precision: str) -> None:
    path = made / f"{name}.edgelm"
    expected = msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=dict[str, bundles.Answers])
    (variant,) = (v for v in Bundle(path).manifest.variants if (v.engine, v.precision) == ("onnxruntime", precision))
    with edgelm.load(path, device="cuda", precision=precision) as model:
        facts = model.explain()
        found = bundles.asked(model)
    assert (facts["device"], facts["provider"], facts["cuda_graphs"]) == ("cuda", "CUDAExecutionProvider", True)
    assert facts["self_test"]["passed"]
    elsewhere = {name: count for name, count in facts["nodes"].items() if name != "CUDAExecutionProvider"}
    assert elsewhere == ({"CPUExecutionProvider": 1} if "fill-mask" in name else {})  # the shape of its output
    reference = expected[variant.file].arrays()
    scale = max(float(np.abs(one).max()) for one in reference)
    for here, there in zip(found.arrays(), reference, strict=True):
        np.testing.assert_allclose(here, there, rtol=0, atol=CLOSE[precision] * scale)


def test_a_list_is_answered_as_its_texts_are_one_by_one(model: Model) -> None:
    asked = texts(300)
    alone = np.stack([model.logits([text])[0] for text in asked])
    np.testing.assert_allclose(model.logits(asked), alone, rtol=0, atol=CLOSE[model.variant.precision])


def test_what_is_recorded_answers_as_what_is_not(model: Model) -> None:
    asked = texts(100)
    first = [model.logits([text]) for text in asked]  # their shapes are recorded meanwhile
    again = [model.logits([text]) for text in asked]
    np.testing.assert_array_equal(np.stack(first), np.stack(again))


def test_threads_get_the_answers_of_one(model: Model) -> None:
    asked = texts(200)
    alone = [model.logits([text]).tolist() for text in asked]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda text: model.logits([text]).tolist(), asked)) == alone


def test_fp16_is_what_a_gpu_takes(made: Path) -> None:
    with edgelm.load(made / "bert-text-classification.edgelm", device="cuda") as model:
        assert model.explain()["precision"] == "fp16"


def test_nodes_that_cuda_does_not_have_are_refused_and_told(made: Path) -> None:
    path = made / "distilbert-text-classification.edgelm"
    with pytest.raises(
        DeviceUnavailable, match=r"nodes would run on the CPU \(.*MatMulInteger.*allow_cpu_ops"
    ) as caught:
        edgelm.load(path, device="cuda", engine="onnxruntime", precision="int8-dynamic")
    assert "DynamicQuantizeLinear" in str(caught.value)
    with edgelm.load(path, device="cuda", precision="int8-dynamic", allow_cpu_ops=True) as model:
        facts = model.explain()
        assert facts["nodes"]["CPUExecutionProvider"] > 10
        assert not facts["cuda_graphs"]
        assert len(model(texts(5))) == 5


def test_a_gpu_that_is_not_there_is_refused(made: Path) -> None:
    with pytest.raises(DeviceUnavailable, match=r"device 'cuda:99': there is none .* has cuda:0 \("):
        edgelm.load(made / "tiny.edgelm", device="cuda:99", precision="fp32")


def test_verify_and_profile_run_there(made: Path, tmp_path: Path) -> None:
    from edgelm.profile import measure
    from edgelm.runtimes.place import Place

    path = made / "distilbert-text-classification.edgelm"
    found = verify.verify(path, where=Place("cuda"))
    states = {one["precision"]: one["state"] for one in found["variants"] if one["engine"] == "onnxruntime"}
    assert (states["fp16"], states["fp32"], states["int8-dynamic"]) == ("passed", "passed", "not here")
    assert found["ok"]
    profile = measure.profile_bundle(path, tokens=[16], seconds=0.1, min_count=20, place=Place("cuda"))
    assert {(run.precision, run.provider) for run in profile.runs} == {("fp16", "CUDAExecutionProvider")}
    assert profile.machine.gpus
    assert json.loads(msgspec.json.encode(profile.machine))["gpus"]


def test_closing_frees_the_memory_of_the_device(made: Path) -> None:
    used: list[int] = []
    for _ in range(6):
        with edgelm.load(made / "bert-fill-mask.edgelm", device="cuda", precision="fp32") as model:
            model(["the [MASK] is"] * 50)
        used.append(_device_bytes())
    assert used[-1] <= used[1] + 2**20


def _device_bytes() -> int:
    """In use on the first GPU, by all processes."""
    import subprocess

    asked: list[Any] = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    return int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout) * 2**20
