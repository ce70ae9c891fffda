"""`edgelm.load`: what was asked for is what runs, it computes here what it should, or it says why not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import edgelm
from edgelm import bundle
from edgelm.bundle import Bundle
from edgelm.errors import BundleError, DataError, DeviceUnavailable, SelfTestFailed
from edgelm.manifest import Manifest

TEXTS = ["turn the light on", "what is the time in paris", "play music"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGELM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def changed(tiny_bundle: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the tiny bundle with another manifest, and entries replaced or, if None, left out."""

    def make(change: Callable[[Manifest], Manifest] = lambda manifest: manifest, **entries: bytes | None) -> Path:
        whole, out = Bundle(tiny_bundle), tmp_path / "changed.edgelm"
        replaced = {f"{name}.json": content for name, content in entries.items()}
        kept = {name: whole.read(name) for name in whole.downloads if name != bundle.MANIFEST} | replaced
        bundle.write(out, change(whole.manifest), {name: one for name, one in kept.items() if one is not None})
        return out

    return make


def shifted(tiny_bundle: Path, by: float) -> bytes:
    """Golden inputs whose logits are off, as if this machine computed something else."""
    golden = json.loads(Bundle(tiny_bundle).read("golden.json"))
    for row in golden["rows"]:
        row["logits"][0] += by
    return json.dumps(golden).encode()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (
            {"device": "cuda"},
            DeviceUnavailable,
            "not CUDAExecutionProvider: pip uninstall -y onnxruntime && pip install",
        ),
        ({"device": "cuda:1"}, DeviceUnavailable, "onnxruntime-gpu"),
        ({"device": "openvino"}, DeviceUnavailable, "pip install 'onnxruntime-openvino'"),
        ({"device": "cude"}, DeviceUnavailable, "did you mean 'cuda'?"),
        ({"device": "xnnpack", "engine": "onnxruntime"}, DeviceUnavailable, "onnxruntime runs on "),
        ({"threads": 0}, DataError, "threads: expected at least 1, found 0"),
        ({"threads": -1}, DataError, "threads: expected at least 1, found -1"),
    ],
)
def test_what_would_not_really_be_used_is_refused(
    tiny_bundle: Path, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        edgelm.load(tiny_bundle, **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_explains_where_it_runs_and_that_it_was_tested(tiny_bundle: Path) -> None:
    for earlier in (False, True):
        with edgelm.load(tiny_bundle, device="xnnpack", precision="int8-dynamic", threads=1) as model:
            facts = json.loads(json.dumps(model.explain()))
        assert (facts["engine"], facts["device"], facts["provider"]) == ("litert", "xnnpack", "XNNPACK")
        test = facts["self_test"]
        assert (test["passed"], test["tested_earlier"]) == (True, earlier)
        assert test["rows"] >= 1
        assert 0 < test["difference"] <= test["bound"]


@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
def test_a_variant_that_computes_something_else_here_is_refused(
    engine: str, tiny_bundle: Path, changed: Callable[..., Path]
) -> None:
    wrong = changed(golden=shifted(tiny_bundle, 0.5))
    for _ in range(2):
        with pytest.raises(SelfTestFailed, match=f"{engine} fp32 computes something else .* is 0.5 on "):
            edgelm.load(wrong, engine=engine, precision="fp32")


def test_auto_takes_what_passes(
    tiny_bundle: Path, changed: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    def loose(manifest: Manifest) -> Manifest:
        """As if ONNX Runtime's variants had been far from the module when they were built."""
        parity = msgspec.structs.replace(manifest.variants[0].parity, max_abs_diff=10.0)
        variants = [
            msgspec.structs.replace(v, parity=parity) if v.engine == "onnxruntime" else v for v in manifest.variants
        ]
        return msgspec.structs.replace(manifest, variants=tuple(variants))

    with edgelm.load(changed(loose, golden=shifted(tiny_bundle, 5.0)), threads=1) as model:
        facts = model.explain()
    assert facts["engine"] == "onnxruntime"
    assert {name.split()[0] for name in facts["left_out"]} == {"litert"}
    assert [record.message.split(" computes")[0] for record in caplog.records] == [
        f"left out: {name}" for name in facts["left_out"]
    ]


def test_a_bundle_without_golden_inputs_is_used_untested_and_it_is_said(
    changed: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    with edgelm.load(changed(golden=None), engine="litert", precision="fp32") as model:
        assert model.explain()["self_test"] == {"passed": None}
    assert "is not tested here" in caplog.text


def test_a_bundle_for_other_hardware_only_is_refused_with_what_it_has(changed: Callable[..., Path]) -> None:
    def foreign(manifest: Manifest) -> Manifest:
        variants = tuple(msgspec.structs.replace(v, engine="abacus") for v in manifest.variants[:1])
        return msgspec.structs.replace(manifest, variants=variants)

    with pytest.raises(DeviceUnavailable) as caught:
        edgelm.load(changed(foreign))
    assert str(caught.value) == (
        "nothing in the bundle runs on device 'cpu' here (it has abacus fp32): no engine named 'abacus': "
        "expected one of litert, null, onnxruntime"
    )


@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
def test_a_bundle_may_be_removed_while_it_is_open(engine: str, tiny_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.edgelm"
    shutil.copyfile(tiny_bundle, copy)
    with edgelm.load(tiny_bundle, engine=engine, precision="fp32") as kept:
        expected = kept.logits(TEXTS)
    with edgelm.load(copy, engine=engine, precision="fp32") as model:
        copy.unlink()
        np.testing.assert_array_equal(model.logits(TEXTS), expected)  # LiteRT's signatures are made only now


def test_a_bundle_removed_before_it_is_read_is_told_in_one_line(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.edgelm"
    shutil.copyfile(tiny_bundle, copy)
    opened = Bundle(copy)
    copy.unlink()
    with pytest.raises(BundleError, match="no such file"):
        opened.read("model.fp32.onnx")


def test_processes_that_load_for_the_first_time_at_once_all_answer(tiny_bundle: Path, cache: Path) -> None:
    program = (
        "import json, sys, edgelm\n"
        "with edgelm.load(sys.argv[1], threads=1) as model:\n"
        "    print(json.dumps([model('play music'), model.explain()['fastest_ms']]))\n"
    )
    command = [sys.executable, "-c", program, str(tiny_bundle)]
    started = [subprocess.Popen(command, env=dict(os.environ), stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = [json.loads(process.communicate()[0]) for process in started]
    assert len({answers[0]["label"] for answers, _ in found}) == 1
    assert all(len(medians) == 4 for _, medians in found)
    assert not [path for path in cache.iterdir() if path.name.startswith(".")]
    with edgelm.load(tiny_bundle, threads=1) as model:
        assert model.explain()["measured_earlier"]


def test_a_cache_that_cannot_be_written_is_said_once_and_everything_works(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGELM_CACHE", str(tmp_path / "file" / "below"))
    for _ in range(2):
        with edgelm.load(tiny_bundle, threads=1) as model:
            assert model("play music")[0]["label"] in model.labels
            assert not model.explain()["measured_earlier"]
    assert len([record for record in caplog.records if "cannot be written" in record.message]) == 1
