"""Documents say what is true: figures come from committed results, names exist, links lead somewhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from edgelm import recipe
from edgelm.cli import app
from edgelm.recipe import DEFAULT_GATES, Gate, Recipe

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/README.md")]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


PAGES = ("arm", "export", "gpu", "peers", "runtime", "trust")
NEEDS = {"pareto.py": "matplotlib", "trust_page.py": "torch"}
SCRIPTS = ("readme.py", "pareto.py", *(f"{page}_page.py" for page in PAGES))


@pytest.mark.parametrize("script", SCRIPTS)
def test_figures_are_the_committed_ones(script: str) -> None:
    if package := NEEDS.get(script):
        pytest.importorskip(package, reason=f"needs {package}, which is not installed")
    command = [sys.executable, str(ROOT / "benchmarks" / script), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_that_are_there(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8"))
    assert not [link for link in links if "://" not in link and not (document.parent / link).exists()]


def test_every_module_is_in_the_map_of_rooms() -> None:
    table = [line for line in text("README.md").split("## The rooms")[1].splitlines() if line.startswith("|")]
    rooms = [room for line in table for room in re.findall(r"`([\w/]+(?:\.py|/))`", line.split("|")[1])]
    assert not [room for room in rooms if not (ROOT / room).exists()]
    modules = [path.relative_to(ROOT).as_posix() for path in (ROOT / "edgelm").glob("*.py")]
    assert {name for name in modules if "__" not in name} == {room for room in rooms if room.endswith(".py")}
    folders = {f"edgelm/{path.name}/" for path in (ROOT / "edgelm").iterdir() if (path / "__init__.py").exists()}
    own = {folder.removeprefix("edgelm/") for folder in folders if (ROOT / folder.removeprefix("edgelm/")).is_dir()}
    assert {room for room in rooms if room.endswith("/")} == {f for f in folders if f[7:] not in own} | own


def test_the_recipe_of_the_docs_has_every_key_and_is_a_recipe() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", text("docs/recipe.md"), re.DOTALL)
    path = ROOT / "docs" / "recipe.md"
    decoded = msgspec.toml.decode(example, type=Recipe)
    steps = (decoded.prune, decoded.budget, decoded.vocab, decoded.sparsity, decoded.distill)
    for section in (decoded, decoded.data, *steps, decoded.export):
        assert section is not None
        for field in msgspec.structs.fields(section):
            assert re.search(rf"^(# )?{field.name} = |^\[{field.name}[\].]", example, re.MULTILINE), (path, field.name)


def test_the_recipe_of_the_docs_shows_the_defaults() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", text("docs/recipe.md"), re.DOTALL)
    decoded = msgspec.toml.decode(example, type=Recipe)
    assert decoded.distill == recipe.Distill()
    assert decoded.vocab == recipe.Vocab()
    assert decoded.prune == recipe.Prune(macs=2.0)
    assert decoded.budget == recipe.Budget(p50_ms=4.0, engine="onnxruntime", bytes=8_000_000, points=1.0)
    assert decoded.gates == {"int8-dynamic": DEFAULT_GATES["int8-dynamic"]}
    assert decoded.export is not None
    assert decoded.export.lengths == recipe.Export(device="x").lengths
    assert decoded.export.compress == recipe.Export(device="x").compress


def test_the_gates_of_the_docs_are_the_defaults() -> None:
    head, _, *rows = [
        [cell.strip(" `") for cell in line.split("|")[1:-2]]
        for line in text("docs/precisions.md").split("| gate ")[1].join(("| gate ", "")).split("\n\n")[0].splitlines()
    ]
    found = {row[0]: dict(zip(head[1:], map(float, row[1:]), strict=True)) for row in rows}
    fields = [field.name for field in msgspec.structs.fields(Gate)]
    assert found == {field: {name: getattr(gate, field) for name, gate in DEFAULT_GATES.items()} for field in fields}


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("examples/*/*.toml")), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_every_recipe_of_the_examples_is_one(path: Path) -> None:
    found = recipe.read(path).recipe
    assert found.prune or found.vocab or found.distill


def test_every_command_is_documented() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    documented = set(re.findall(r"^\| `([a-z]+)` \|", text("docs/cli.md"), re.MULTILINE))
    assert names == documented


def test_the_example_is_ours_to_ship_and_complete() -> None:
    folder = ROOT / "examples" / "assistant"
    labels = set(json.loads((folder / "reference" / "config.json").read_text(encoding="utf-8"))["id2label"].values())
    rows = {}
    for name in ("calibrate.jsonl", "check.jsonl"):
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        rows[name] = [json.loads(line) for line in lines]
        assert {row["label"] for row in rows[name]} == labels
    assert len(rows["calibrate.jsonl"]) >= 300
    texts = [row["text"] for part in rows.values() for row in part]
    assert len(set(texts)) == len(texts)


@pytest.mark.data
def test_no_text_of_the_example_is_copied_from_the_data(real_data: Path) -> None:
    seen = set()
    for path in (real_data / "clinc150").glob("*.jsonl"):
        seen |= {json.loads(line)["text"].strip().lower() for line in path.read_text("utf-8").split("\n") if line}
    for path in (ROOT / "examples" / "assistant").glob("*.jsonl"):
        ours = {json.loads(line)["text"].strip().lower() for line in path.read_text("utf-8").splitlines()}
        assert not ours & seen
