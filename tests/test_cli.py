"""The command line as people and scripts use it: a process, its two streams and its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tiny
from table import made

from edgelm import devices
from edgelm.manifest import Figure
from edgelm.profile import detect
from edgelm.schema import encode

RECIPE = """
schema = "edgelm.recipe/1"
model = "checkpoint"
[data]
train = "train.jsonl"
dev = "dev.jsonl"
[prune]
macs = 1.2
multiple_of = 8
[distill]
epochs = 1
[export]
device = "generic-x86_64"
lengths = [8, 16]
[gates.int8-dynamic]
max_abs_diff = 100.0
agreement = 0.0
kl = 100.0
accuracy_loss = 100.0
"""


def edgelm(
    *arguments: object, stdin: bytes | None = None, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgelm", *map(str, arguments)]
    done = subprocess.run(command, input=stdin or b"", capture_output=True, cwd=folder, check=False)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def refused(done: subprocess.CompletedProcess[str], *words: str, code: int = 2) -> None:
    """One clear line, the exit code, and no traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("edgelm: ")
    assert sum(line.startswith("edgelm: ") for line in done.stderr.splitlines()) == 1
    for word in words:
        assert word in last, last


def workplace(folder: Path) -> Path:
    """A checkpoint, data and a recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny.distilbert(folder / "checkpoint")
    rows = [{"text": text or "play it", "label": tiny.LABELS[i % 3]} for i, text in enumerate(tiny.TEXTS * 4)]
    for name in ("train.jsonl", "dev.jsonl"):
        (folder / name).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workplace(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def built(place: Path) -> dict[str, Any]:
    """What `edgelm build --json -` says of the whole job."""
    done = edgelm("build", place / "recipe.toml", "--out", place / "tiny.edgelm", "--json", "-")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_build_does_the_whole_job(built: dict[str, Any], place: Path) -> None:
    assert built["schema"] == "edgelm.build/1"
    assert Path(built["bundle"]) == place / "tiny.edgelm"
    assert {(v["engine"], v["precision"]) for v in built["variants"]} == {
        (engine, precision) for engine in ("onnxruntime", "litert") for precision in ("fp32", "int8-dynamic")
    }
    for variant in built["variants"]:
        assert {run["tokens"] for run in variant["runs"]} == {16}
        assert all(run["p90_ms"] >= run["p50_ms"] > 0 and run["peak_rss_bytes"] > 1e6 for run in variant["runs"])
        assert variant["parity"]["rows"] == len(tiny.TEXTS) * 4
        assert variant["score"]["n"] == len(tiny.TEXTS) * 4
        assert variant["download_bytes"] == variant["bytes"]
    assert built["baseline"]["runs"][0]["engine"] == "pytorch"
    assert built["compression"]["prune"]["macs"] > 1.1
    assert built["prediction"]["expected"] == []  # nobody measured the peaks of a generic machine
    assert "no figure of fp32 matrix product" in built["prediction"]["missing"][0]
    assert (place / "tiny.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
@pytest.mark.parametrize("precision", ["fp32", "int8-dynamic"])
def test_run_answers_arguments_and_standard_input_alike(built: dict[str, Any], engine: str, precision: str) -> None:
    narrowed = ["--engine", engine, "--precision", precision, "--json", "-"]
    given = edgelm("run", built["bundle"], "play music", "what time is it", *narrowed)
    piped = edgelm("run", built["bundle"], *narrowed, stdin=b"play music\n\nwhat time is it\n")
    assert given.returncode == piped.returncode == 0, given.stderr
    found = json.loads(given.stdout)
    assert found["answers"] == json.loads(piped.stdout)["answers"]
    assert [set(answer) for answer in found["answers"]] == [{"label", "score"}] * 2
    assert (found["model"]["engine"], found["model"]["precision"]) == (engine, precision)


def test_run_prints_a_line_for_each_text(built: dict[str, Any]) -> None:
    done = edgelm("run", built["bundle"], "play music", "[bold]turn[/bold] it on")
    assert done.returncode == 0, done.stderr
    assert [line.split("\t")[1] for line in done.stdout.splitlines()] == ["play music", "[bold]turn[/bold] it on"]


def test_eval_scores_every_variant(built: dict[str, Any], place: Path) -> None:
    done = edgelm("eval", built["bundle"], "--data", place / "dev.jsonl", "--json", "-")
    assert done.returncode == 0, done.stderr
    found = {(r["engine"], r["precision"]): r for r in json.loads(done.stdout)["results"]}
    for variant in built["variants"]:
        result = found[variant["engine"], variant["precision"]]
        assert {key: result[key] for key in ("metric", "value", "n")} == variant["score"]


def test_profile_measures_what_was_asked_for(built: dict[str, Any], place: Path) -> None:
    page = place / "again.html"
    asked = ["--engine", "litert", "--tokens", "8,16", "--seconds", "0.1", "--threads", "1", "--html", page]
    done = edgelm("profile", built["bundle"], *asked, "--json", "-")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    keys = {"engine", "precision", "tokens", "batch", "threads", "p50_ms", "p90_ms", "p99_ms", "n", "peak_rss_bytes"}
    assert all(keys <= set(run) for run in found["runs"])
    assert {(run["engine"], run["tokens"], run["threads"]) for run in found["runs"]} == {
        ("litert", 8, 1),
        ("litert", 16, 1),
    }
    assert found["machine"]["cpu"]
    assert page.stat().st_size > 10_000


def test_a_profile_is_kept_and_compared(built: dict[str, Any], place: Path) -> None:
    first, second = place / "first.json", place / "second.json"
    asked = ["--engine", "onnxruntime", "--tokens", "8", "--seconds", "0", "--threads", "1", "--save"]
    for path in (first, second):
        done = edgelm("profile", built["bundle"], *asked, path, "--per-layer", "--energy", "--json", "-")
        assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {run["fresh"]["cold_ns"] > run["fresh"]["load_ns"] > 0 for run in found["runs"]} == {True}
    layers = [layer["name"] for layer in found["runs"][0]["layers"]]
    assert layers[0] == "embedding"
    assert layers[-1] == "head"
    assert found["peak"]["fp32_macs"] > 0
    assert ("no_energy" in found) != any("energy" in run for run in found["runs"])
    refused(edgelm("profile", built["bundle"], *asked, first), "first.json", "--force")
    done = edgelm("compare", first, second, "--json", "-", "--fail-if", "p50>+100000%")
    assert done.returncode == 0, done.stderr
    changes = json.loads(done.stdout)["changes"]
    assert {(change["precision"], change["metric"]) for change in changes} >= {("fp32", "p50"), ("fp32", "peak_rss")}
    assert edgelm("compare", first, second).returncode == 0
    refused(edgelm("compare", first, place / "recipe.toml"), "recipe.toml", "expected a profile")
    refused(edgelm("compare", first, second, "--fail-if", "p50"), "p50>+5%")
    slower = json.loads(second.read_text())
    for run in slower["runs"]:
        run["samples_ns"] = [10 * sample for sample in run["samples_ns"]]
    second.write_text(json.dumps(slower))
    refused(edgelm("compare", first, second, "--fail-if", "p50>+5%"), "p50 of onnxruntime fp32", "allowed", code=1)


def test_a_bundle_under_the_load_of_a_scenario_and_without_a_pause(built: dict[str, Any], place: Path) -> None:
    narrowed = ["--engine", "onnxruntime", "--precision", "fp32", "--threads", "1", "--json", "-"]
    pytest.importorskip("mlperf_loadgen")
    load = ["--scenario", "single-stream", "--seconds", "0", "--data", place / "dev.jsonl"]
    done = edgelm("profile", built["bundle"], *load, *narrowed)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert (run["scenario"], run["verdict"]) == ("single-stream", "VALID")
    assert run["n"] >= 1024
    done = edgelm("profile", built["bundle"], "--sustained", "1s", "--tokens", "16", *narrowed)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert (run["scenario"], run["tokens"], len(run["windows"])) == ("sustained", 16, 2)
    refused(edgelm("profile", built["bundle"], "--sustained", "soon"), "10m")


def test_this_machine_can_be_described(tmp_path: Path) -> None:
    out = tmp_path / "mine.toml"
    done = edgelm("devices", "detect", "--out", out, "--json", "-")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["devices"]
    assert found["name"] == "mine"
    assert any(figure["name"] == "memory bandwidth" for figure in found["figures"])
    assert json.loads(edgelm("devices", out, "--json", "-").stdout)["devices"] == [found]
    refused(edgelm("devices", "detect", "--out", tmp_path / "mine.txt"), ".toml")


def test_inspect_says_what_is_inside(built: dict[str, Any]) -> None:
    done = edgelm("inspect", built["bundle"], "--json", "-")
    found = json.loads(done.stdout)
    assert found["labels"] == list(tiny.LABELS)
    assert found["bytes"] == Path(built["bundle"]).stat().st_size
    assert all({"engine", "precision", "bytes", "parity"} <= set(variant) for variant in found["variants"])
    assert found["variants"] == built["variants"]
    words = edgelm("inspect", built["bundle"]).stdout
    assert all(word in words for word in ("lights, music, time", "download", "disk", "memory"))


def test_export_of_a_compressed_checkpoint(place: Path) -> None:
    smaller = place / "smaller"
    done = edgelm("compress", place / "checkpoint", "--out", smaller, "--data", place / "train.jsonl", "--macs", 1.3)
    assert done.returncode == 0, done.stderr
    out = place / "smaller.edgelm"
    done = edgelm(
        *("export", smaller, "--device", "raspberry-pi-5", "--out", out, "--format", "tflite", "--lengths", "8"),
        *("--precision", "fp32", "--compress", "deflate", "--json", place / "export.json"),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((place / "export.json").read_text())
    assert [(v["engine"], v["precision"], v["lengths"]) for v in found["variants"]] == [("litert", "fp32", [8])]
    with zipfile.ZipFile(out) as archive:
        (variant,), entry = found["variants"], archive.getinfo("model.fp32.tflite")
    assert (variant["download_bytes"], variant["bytes"]) == (entry.compress_size, entry.file_size)
    assert variant["download_bytes"] < variant["bytes"]
    assert "No latency is predicted on raspberry-pi-5: its profile has no figure of " in done.stdout


def test_a_device_with_peaks_has_a_prediction(place: Path, tmp_path: Path) -> None:
    figures = {"fp32 matrix product": "GMAC/s", "int8 matrix product": "GMAC/s", "memory bandwidth": "GB/s"}
    board = msgspec.structs.replace(
        devices.load("raspberry-pi-5"),
        name="board",
        figures=tuple(Figure(name=n, value=1.0, unit=u, source="made up") for n, u in figures.items()),
    )
    (tmp_path / "board.toml").write_text(detect.toml(board), encoding="utf-8")
    done = edgelm(
        *("export", place / "checkpoint", "--device", tmp_path / "board.toml", "--out", tmp_path / "out.edgelm"),
        *("--format", "onnx", "--precision", "fp32", "--lengths", "32", "--json", tmp_path / "export.json"),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "export.json").read_text())["prediction"]
    assert (found["device"], found["threads"], found["missing"]) == ("board", 4, [])
    assert [(one["engine"], one["tokens"]) for one in found["expected"]] == [("onnxruntime", 16), ("onnxruntime", 32)]
    assert all(0 < one["low_ms"] < one["p50_ms"] < one["high_ms"] for one in found["expected"])
    assert "predicted on board, 4 threads: from the roofline, not measured" in " ".join(done.stdout.split())


@pytest.mark.parametrize("command", ["devices", "doctor"])
def test_devices_and_doctor_answer_in_json_and_in_words(command: str) -> None:
    found = json.loads(edgelm(command, "--json", "-").stdout)
    assert found["schema"] == f"edgelm.{command}/1"
    assert edgelm(command).stdout.strip()


def test_a_device_says_what_it_prefers_and_what_it_avoids_and_why() -> None:
    from edgelm import devices

    device = devices.load("nvidia-cuda")
    said = edgelm("devices", "nvidia-cuda").stdout
    assert f"{', '.join(device.formats)} in {', '.join(device.precisions)}" in said
    assert device.avoid
    for avoid in device.avoid:
        assert f"avoids {avoid.precision}: {avoid.reason}\n  {avoid.source}\n" in said


def test_version_and_help() -> None:
    from importlib.metadata import version

    assert edgelm("--version").stdout.strip() == version("edgelm")
    words = edgelm("--help").stdout
    assert all(name in words for name in ("build", "compress", "export", "run", "eval", "profile", "inspect"))


class TestBadInput:
    """Each ends with one clear line and exit code 2, and leaves nothing behind."""

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        out = tmp_path / "x.edgelm"
        done = edgelm("export", tmp_path / "none", "--device", "generic-x86_64", "--out", out)
        refused(done, "no such folder")
        assert list(tmp_path.iterdir()) == []

    def test_an_unsupported_architecture(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
        done = edgelm("export", tmp_path, "--device", "generic-x86_64", "--out", tmp_path / "x.edgelm")
        refused(done, "gpt2", "not supported")

    def test_a_truncated_checkpoint(self, tmp_path: Path) -> None:
        weights = tiny.distilbert(tmp_path) / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:999])
        done = edgelm("export", tmp_path, "--device", "generic-x86_64", "--out", tmp_path / "x.edgelm")
        refused(done, "cannot be read")
        assert not (tmp_path / "x.edgelm").exists()

    def test_a_recipe_with_a_misspelt_key(self, tmp_path: Path) -> None:
        path = tmp_path / "recipe.toml"
        path.write_text(RECIPE.replace("epochs", "epoch"))
        refused(edgelm("build", path, "--out", tmp_path / "x.edgelm"), "distill", "did you mean 'epochs'")

    def test_a_bundle_cut_short(self, built: dict[str, Any], tmp_path: Path) -> None:
        cut = tmp_path / "cut.edgelm"
        cut.write_bytes(Path(built["bundle"]).read_bytes()[:-500])
        for command in (["run", cut, "text"], ["inspect", cut], ["profile", cut]):
            refused(edgelm(*command), str(cut))

    @pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n\xff\xfe", b"abc\0def\n"])
    def test_binary_on_standard_input(self, built: dict[str, Any], data: bytes) -> None:
        refused(edgelm("run", built["bundle"], stdin=data), "standard input, line 1")

    def test_labels_that_do_not_match(self, built: dict[str, Any], tmp_path: Path) -> None:
        data = tmp_path / "data.jsonl"
        data.write_text('{"text": "a", "label": "muzik"}')
        refused(edgelm("eval", built["bundle"], "--data", data), "line 1", "did you mean 'music'")

    def test_a_device_that_would_not_really_be_used(self, built: dict[str, Any]) -> None:
        refused(edgelm("run", built["bundle"], "text", "--device", "cuda"), "cuda")

    def test_a_device_profile_with_a_typo(self, place: Path, tmp_path: Path) -> None:
        done = edgelm("export", place / "checkpoint", "--device", "rasberry-pi-5", "--out", tmp_path / "x.edgelm")
        refused(done, "raspberry-pi-5")

    def test_nothing_to_calibrate_on(self, place: Path, tmp_path: Path) -> None:
        asked = ["export", place / "checkpoint", "--device", "generic-x86_64", "--out", tmp_path / "x.edgelm"]
        asked += ["--precision", "int8-static"]
        refused(edgelm(*asked), "int8-static is calibrated on real texts", "--data FILE")
        refused(edgelm(*asked, "--format", "onnx", "--data", place / "dev.jsonl"), "16 different ones or more, found 8")
        assert list(tmp_path.iterdir()) == []

    def test_a_length_beyond_the_positions(self, place: Path, tmp_path: Path) -> None:
        asked = ["export", place / "checkpoint", "--device", "generic-x86_64", "--out", tmp_path / "x.edgelm"]
        refused(edgelm(*asked, "--lengths", "8,65"), "65 tokens are beyond the model's 64 positions")
        assert list(tmp_path.iterdir()) == []

    def test_a_precision_that_the_device_avoids_is_written_with_a_warning_that_says_why(
        self, place: Path, tmp_path: Path
    ) -> None:
        from edgelm import devices

        avoid = devices.load("nvidia-cuda").avoid[0]
        asked = ["export", place / "checkpoint", "--device", "nvidia-cuda", "--precision", avoid.precision]
        done = edgelm(*asked, "--lengths", "8", "--out", tmp_path / "x.edgelm")
        words = " ".join(done.stderr.split())  # a terminal's width breaks lines
        assert f"{avoid.precision} should not be used on nvidia-cuda: {avoid.reason}" in words

    @pytest.mark.parametrize("option", ["--out", "--json"])
    def test_an_output_folder_that_is_not_there(self, option: str, place: Path, tmp_path: Path) -> None:
        outputs = {"--out": tmp_path / "x.edgelm", "--json": tmp_path / "x.json"} | {option: tmp_path / "no" / "x"}
        named = [part for pair in outputs.items() for part in pair]
        refused(edgelm("export", place / "checkpoint", "--device", "generic-x86_64", *named), "make it first")
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_holds_other_things_is_never_replaced(self, place: Path, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("years of work")
        done = edgelm("compress", place / "checkpoint", "--out", tmp_path, "--data", place / "train.jsonl", "--macs", 2)
        refused(done, "thesis.txt")
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    @pytest.mark.parametrize(
        ("text", "words"),
        [("", "an empty file"), ('{"text": " "}', "blank"), ('{"text": "сегодня хорошая погода"}', "language")],
        ids=["empty", "blank", "another language"],
    )
    def test_calibration_texts_that_say_nothing_to_the_model(
        self, text: str, words: str, place: Path, tmp_path: Path
    ) -> None:
        data = tmp_path / "train.jsonl"
        data.write_text(text, encoding="utf-8")
        done = edgelm("compress", place / "checkpoint", "--out", tmp_path / "x", "--data", data, "--macs", 2)
        refused(done, str(data), words)
        assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]

    def test_bad_usage(self) -> None:
        done = edgelm("run")
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_a_plan_says_what_would_be_done_and_writes_nothing(place: Path, tmp_path: Path) -> None:
    options = ["--data", place / "train.jsonl", "--macs", 2, "--set", "distill.epochs=2", "--json", "-"]
    done = edgelm("compress", place / "checkpoint", "--plan", *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["schema"] == "edgelm.plan/1"
    assert list(found["steps"]) == ["prune", "distill"]
    assert found["steps"]["distill"]["steps"] > 0
    assert found["after"]["macs"] < 0.7 * found["before"]["macs"]
    assert found["budget"] is None
    assert list(tmp_path.iterdir()) == []


def test_a_budget_is_planned_by_a_table_of_another_machine(place: Path, tmp_path: Path) -> None:
    (tmp_path / "table.json").write_bytes(encode(made()))
    sets = [f"budget.table={tmp_path / 'table.json'}", "budget.tokens=16", "budget.engine=onnxruntime"]
    options = ["--data", place / "train.jsonl", "--plan", *(f"--set={change}" for change in sets)]
    done = edgelm("compress", place / "checkpoint", "--p50", 20, *options)
    assert done.returncode == 0, done.stderr
    assert "p50 at 16 tokens" in done.stdout
    refused(edgelm("compress", place / "checkpoint", "--p50", 0.1, *options), "p50_ms", "0.1 ms", "allow more")


def test_compress_needs_to_know_where_to_write(place: Path) -> None:
    refused(edgelm("compress", place / "checkpoint", "--data", place / "train.jsonl"), "--out", "--plan")


def test_a_variant_outside_its_gate_fails_the_build_and_leaves_nothing(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.edgelm"
    strict = [f"gates.int8-dynamic.{key}=0" for key in ("max_abs_diff", "kl", "accuracy_loss")]
    strict += ["gates.int8-dynamic.agreement=1", 'export.formats=["onnx"]']
    done = edgelm("build", place / "recipe.toml", "--out", out, *(f"--set={change}" for change in strict))
    refused(done, "onnx", "int8-dynamic", code=1)
    assert list(tmp_path.iterdir()) == []


FULL = """
import errno, pathlib, sys
from edgelm import cli

def full(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")

pathlib.Path.write_bytes = full
sys.argv[0] = "edgelm"
cli.app()
"""


def test_a_full_disk_is_told_in_one_line_and_leaves_nothing(place: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, "compress", str(place / "checkpoint"), "--out", str(tmp_path / "x")]
    command += ["--data", str(place / "train.jsonl"), "--macs", "1.3"]
    refused(subprocess.run(command, capture_output=True, text=True, check=False), "the disk is full")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_compression_leaves_nothing(place: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "edgelm",
        "compress",
        str(place / "checkpoint"),
        "--out",
        str(tmp_path / "smaller"),
    ]
    command += ["--data", str(place / "train.jsonl"), "--set", "distill.epochs=100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert process.stderr is not None
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and b"distil" not in process.stderr.readline():
        continue
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"interrupted" in errors
    assert b"Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
