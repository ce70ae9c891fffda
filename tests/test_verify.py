from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgelm import bundle, runtimes
from edgelm.bundle import Bundle
from edgelm.cli import app
from edgelm.errors import BundleError
from edgelm.verify import verify


def with_golden(tiny_bundle: Path, out: Path, by: float) -> Path:
    """A copy whose golden logits are off."""
    whole = Bundle(tiny_bundle)
    entries = {name: whole.read(name) for name in whole.downloads if name != bundle.MANIFEST}
    golden = json.loads(entries["golden.json"])
    for row in golden["rows"]:
        row["logits"][0] += by
    bundle.write(out, whole.manifest, entries | {"golden.json": json.dumps(golden).encode()})
    return out


def altered(tiny_bundle: Path, out: Path, name: str) -> Path:
    """A copy with one byte of an entry's content changed, and the checksum of the ZIP left as it was."""
    content = bytearray(tiny_bundle.read_bytes())
    with zipfile.ZipFile(tiny_bundle) as archive:
        entry = archive.getinfo(name)
    length = int.from_bytes(content[entry.header_offset + 26 :][:2], "little")
    length += int.from_bytes(content[entry.header_offset + 28 :][:2], "little")
    content[entry.header_offset + 30 + length + entry.compress_size // 2] ^= 1
    out.write_bytes(content)
    return out


def test_a_bundle_as_it_was_built_is_in_order(tiny_bundle: Path) -> None:
    found = verify(tiny_bundle, threads=1)
    assert found["ok"]
    assert {entry["entry"] for entry in found["entries"]} == set(Bundle(tiny_bundle).downloads)
    assert not [entry for entry in found["entries"] if entry["problem"]]
    assert [one["state"] for one in found["variants"]] == ["passed"] * 4
    assert all(one["rows"] == 8 and one["difference"] <= one["bound"] and one["ms"] > 0 for one in found["variants"])


def test_a_variant_that_computes_something_else_fails_with_its_figure(tiny_bundle: Path, tmp_path: Path) -> None:
    found = verify(with_golden(tiny_bundle, tmp_path / "off.edgelm", 9.0), threads=1)
    assert not found["ok"]
    assert {one["state"] for one in found["variants"]} == {"failed"}
    assert all(one["difference"] == pytest.approx(9.0, abs=1.5) for one in found["variants"])
    assert "computes something else" in found["variants"][0]["problem"]


@pytest.mark.parametrize("name", ["model.int8-dynamic.tflite", "tokenizer.json", "recipe.toml"])
def test_what_was_altered_is_named(name: str, tiny_bundle: Path, tmp_path: Path) -> None:
    found = verify(altered(tiny_bundle, tmp_path / "altered.edgelm", name), threads=1)
    assert not found["ok"]
    assert [entry["entry"] for entry in found["entries"] if entry["problem"]] == [name]
    states = {f"{one['engine']} {one['precision']}": one["state"] for one in found["variants"]}
    assert (states["litert int8-dynamic"] == "failed") is name.endswith("tflite")
    assert list(states.values()).count("passed") == (3 if name.endswith("tflite") else 4)


def test_what_cannot_run_here_does_not_fail_but_something_must_pass(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes.engine("litert"), "missing", lambda device: "pip install it")
    found = verify(tiny_bundle, threads=1)
    assert found["ok"]
    assert [one["state"] for one in found["variants"]] == ["passed", "passed", "not here", "not here"]
    assert "pip install it" in found["variants"][2]["problem"]
    monkeypatch.setattr(runtimes.engine("onnxruntime"), "missing", lambda device: "pip install it too")
    assert not verify(tiny_bundle, threads=1)["ok"]


def test_a_bundle_without_golden_inputs_cannot_be_verified(tiny_bundle: Path, tmp_path: Path) -> None:
    whole = Bundle(tiny_bundle)
    entries = {name: whole.read(name) for name in whole.downloads if name not in (bundle.MANIFEST, "golden.json")}
    bundle.write(tmp_path / "none.edgelm", whole.manifest, entries)
    with pytest.raises(BundleError, match=r"holds no golden\.json"):
        verify(tmp_path / "none.edgelm")


def test_the_command_ends_with_1_when_something_is_wrong(tiny_bundle: Path, tmp_path: Path) -> None:
    runner, wrong = CliRunner(), with_golden(tiny_bundle, tmp_path / "off.edgelm", 9.0)
    good = runner.invoke(app, ["verify", str(tiny_bundle), "--threads", "1", "--json", "-"])
    assert good.exit_code == 0, good.stderr
    assert json.loads(good.stdout)["schema"] == "edgelm.verify/1"
    assert json.loads(good.stdout)["ok"]
    bad = runner.invoke(app, ["verify", str(wrong), "--threads", "1"])
    assert bad.exit_code == 1
    assert bad.stdout.count("failed") == 4
    assert "computes something else" in bad.stderr
    gone = runner.invoke(app, ["verify", str(tmp_path / "gone.edgelm")])
    assert gone.exit_code == 2
