from __future__ import annotations

from pathlib import Path

import pytest

from edgelm import recipe
from edgelm.errors import RecipeError

GOOD = """
schema = "edgelm.recipe/1"
model = "reference"
[data]
train = "texts.jsonl"
[prune]
macs = 1.5
[export]
device = "generic-x86_64"
[gates.int8-dynamic]
max_abs_diff = 1.0
agreement = 0.9
kl = 0.1
accuracy_loss = 2.0
"""


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "recipe.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_reads_what_is_given_and_keeps_the_defaults_of_the_rest(tmp_path: Path) -> None:
    located = recipe.read(write(tmp_path, GOOD))
    assert located.recipe.prune is not None
    assert located.recipe.prune.macs == 1.5
    assert located.recipe.prune.seed == 0
    assert located.recipe.gate("int8-dynamic").agreement == 0.9
    assert located.recipe.gate("fp32") == recipe.DEFAULT_GATES["fp32"]
    assert located.path("texts.jsonl") == tmp_path / "texts.jsonl"


def test_a_model_is_a_folder_beside_the_recipe_or_else_a_hub_id(tmp_path: Path) -> None:
    located = recipe.read(write(tmp_path, GOOD))
    assert located.model() == "reference"
    (tmp_path / "reference").mkdir()
    assert located.model() == str(tmp_path / "reference")


def test_overrides_are_toml_or_else_strings(tmp_path: Path) -> None:
    changes = ["prune.macs=2", "distill.epochs=0.5", "data.dev=a b.jsonl", "export.lengths=[16, 32]"]
    made = recipe.read(write(tmp_path, GOOD), changes).recipe
    assert made.prune is not None
    assert made.distill is not None
    assert made.export is not None
    assert (made.prune.macs, made.distill.epochs, made.data.dev) == (2.0, 0.5, "a b.jsonl")
    assert made.export.lengths == (16, 32)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("macs = 1.5", "macz = 1.5", ["prune", "macz", "did you mean 'macs'"]),
        ("[prune]", "[pruning]", ["pruning", "did you mean 'prune'"]),
        ("macs = 1.5", "macs = 0.5", ["prune.macs", ">= 1.0"]),
        ("macs = 1.5", 'macs = "much"', ["prune.macs", "float"]),
        ('device = "generic-x86_64"', "", ["export", "device"]),
        ("agreement = 0.9", "agreement = 90", ["gates", "<= 1.0"]),
        ("edgelm.recipe/1", "edgelm.recipe/9", ["schema", "edgelm.recipe/9"]),
        ("[data]", "[data", ["not readable"]),
    ],
)
def test_a_mistake_gets_one_line_that_names_the_place(old: str, new: str, words: list[str], tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(RecipeError) as caught:
        recipe.read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in [str(path), *words]), message


@pytest.mark.parametrize("change", ["prune.macs", "=3", "model.deep=1", "prune.speed=9"])
def test_an_override_that_makes_no_sense_is_refused(change: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        recipe.read(write(tmp_path, GOOD), [change])


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not readable"):
        recipe.read(write(tmp_path, b"\xff\x00\x01"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        recipe.read(tmp_path / "none.toml")


def test_a_recipe_is_saved_whole_and_reads_back_as_it_was(tmp_path: Path) -> None:
    found = recipe.read(write(tmp_path, GOOD), ["distill.augment=2", "prune.layers=[0, 2]"]).recipe
    assert recipe.read(write(tmp_path, recipe.dump(found))).recipe == found
