"""The house: who may import whom, what is public, what is packaged."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"edgelm": ROOT / "edgelm", "edgelm.devices": ROOT / "devices"}
FOLDERS |= {"edgelm.exporters": ROOT / "exporters", "edgelm.runtimes": ROOT / "runtimes"}
FLOORS = [
    {"edgelm.errors", "edgelm.progress"},
    {"edgelm.schema"},
    {"edgelm.manifest"},
    {"edgelm.runs"},
    {"edgelm.recipe"},
    {"edgelm.text", "edgelm.tasks", "edgelm.bundle"},
    {"edgelm.devices"},
    {"edgelm.runtimes"},
    {"edgelm.batches"},
    {"edgelm.predictor", "edgelm.verify", "edgelm.doctor"},
    {"edgelm.profile"},
    {"edgelm.heads", "edgelm.data"},
    {"edgelm.model"},
    {"edgelm.architecture"},
    {"edgelm.checkpoint", "edgelm.evaluate"},
    {"edgelm.compress", "edgelm.exporters", "edgelm.baseline"},
    {"edgelm.check", "edgelm.roofline"},
    {"edgelm.aim"},
    {"edgelm.compression"},
    {"edgelm.build"},
    {"edgelm.console", "edgelm.options", "edgelm.show", "edgelm.show_prediction", "edgelm.show_profile"},
    {"edgelm.cli_profile"},
    {"edgelm.cli"},
    {"edgelm.__main__"},
]
HEAVY = {"torch", "transformers", "tensorflow", "onnx", "onnxsim", "litert_torch", "ai_edge_quantizer", "tf2onnx"}
WITH_TENSORFLOW = {f"edgelm.exporters.{name}" for name in ("reading", "tensorflow", "foreign.tf_onnx")}
BUILD_SIDE = {"edgelm.heads", "edgelm.model", "edgelm.architecture", "edgelm.checkpoint"}
BUILD_SIDE |= {"edgelm.compress", "edgelm.exporters", "edgelm.baseline"}


def modules() -> dict[str, Path]:
    """Every module by its import name; the links inside edgelm/ lead to the same files and are left out."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if package == "edgelm" and parts[0] in ("devices", "exporters", "runtimes"):
                continue
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(name: str) -> str | None:
    """The room of a module or of a name imported from it."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "edgelm" and len(parts) > 1 else None


MODULES = modules()


def floor(name: str) -> int:
    return next(index for index, rooms in enumerate(FLOORS) if name in rooms)


def test_every_room_stands_on_a_floor() -> None:
    rooms = {room(name) for name in MODULES} - {None}
    assert rooms == set().union(*FLOORS)


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"edgelm"}))
def test_arrows_only_run_down(name: str) -> None:
    own = room(name)
    assert own is not None
    others = {room(target) for target in imports(MODULES[name])} - {None, own}
    public = {"edgelm.__version__", "edgelm.load", "edgelm.Model"}  # the package itself, for the command line
    above = {other for other in others - public if other is not None and floor(other) >= floor(own)}
    # rooms of one floor may know each other only where no circle can arise
    assert not {other for other in above if floor(other) > floor(own)}
    for other in above:
        back = {room(t) for m in MODULES if room(m) == other for t in imports(MODULES[m])}
        assert own not in back, f"{own} and {other} import each other"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_the_run_side_imports_nothing_heavy(name: str) -> None:
    found = {target.split(".")[0] for target in imports(MODULES[name])} & HEAVY
    assert not found or room(name) in BUILD_SIDE


def test_tensorflow_is_imported_in_two_modules_alone() -> None:
    theirs = {"tensorflow", "tf2onnx", "keras"}
    found = {name for name, path in MODULES.items() if theirs & {target.split(".")[0] for target in imports(path)}}
    assert found == WITH_TENSORFLOW - {"edgelm.exporters.reading"}


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"edgelm.cli"}))
def test_all_is_literal_sorted_and_true(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    public = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    }
    literal = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    ]
    if not public and not literal:
        return
    assert len(literal) == 1, "expected one literal __all__"
    if name in WITH_TENSORFLOW and importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed: pip install 'edgelm[tensorflow]'")
    module = importlib.import_module(name)
    assert all(hasattr(module, one) for one in literal[0])
    assert public <= set(literal[0]), f"public by accident: {public - set(literal[0])}"


def test_every_package_is_listed_by_hand() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert packages == set(settings["packages"])
    assert {name for name in packages if name in FOLDERS} == set(settings["package-dir"])


def test_everything_that_pyproject_asks_for_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    names = {one.split("[")[0].split(">")[0].split("=")[0].strip().lower() for one in wanted} - {"edgelm"}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert {name.replace("_", "-") for name in names} <= pinned
    assert all("==" in line for line in lines if line and not line.startswith("#"))
