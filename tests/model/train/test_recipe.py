import re
from pathlib import Path

import pytest

from model.errors import BadData
from model.network import CONVOLUTIONS
from model.table import NIH_FINDINGS, OPACITY
from model.train.recipe import RECIPES, read_recipe


def test_the_shipped_recipes_are_whole() -> None:
    assert read_recipe("hilum").labels == (*NIH_FINDINGS, OPACITY)
    assert read_recipe("tuned").stages[0].cut == "head"
    assert read_recipe("udacity").labels == ("Pneumonia",)
    assert read_recipe("udacity").stages[0].cut == CONVOLUTIONS[-1]


@pytest.mark.parametrize("name", ["hilum", "tuned"])
def test_every_key_of_a_shipped_recipe_is_explained_in_one_of_them(name: str) -> None:
    lines = (RECIPES / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    told: set[str] = {"name", "version"}
    for before, line in zip(["", *lines], lines, strict=False):
        key = re.match(r"(\w+) = ", line)
        if key and ("#" in line or before.startswith("#")):
            told.add(key[1])
    keys = {key[1] for line in lines if (key := re.match(r"(\w+) = ", line))}
    assert keys - told == set()


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("size = 32", "sise = 32", "sise: is no key of a recipe"),
        ("size = 32\n", "", "size: is missing"),
        ("dropout = 0.0", "dropout = 1.5", "network.dropout: must be a number from 0 to 0.95, not 1.5"),
        ("mirror = true", "mirror = 1", "augmentation.mirror: must be true or false"),
        ("mirror = true", "mirror = true\nflip_vertical = true", "augmentation.flip_vertical: is no key"),
        ("block5_conv3", "block6", "stages[1].train: must be head, a block"),
        ("epochs = 2\nrate = 1e-4", "epochs = 0\nrate = 1e-4", "stages[1].epochs: must be a whole number"),
        ('"f1"', '"f2"', "thresholds.rule: must be f1, youden"),
        ('"Lung Opacity" = 2.0', '"Lung" = 2.0', "loss.weights: 'Lung' is none of the labels"),
        ('"averages"', '"flatten"', "network.pools: must be one pool"),
        ('name = "block5"', 'name = "head"', "each stage needs a name of its own"),
        ("[[stages]]", "[stages]", "is no TOML file"),
        ('["Mass", "Lung Opacity"]', '["Mass", "Mass"]', "labels: must hold nothing twice"),
    ],
)
def test_a_bad_recipe_names_its_file_and_key(recipe, old: str, new: str, named: str) -> None:  # type: ignore[no-untyped-def]
    file: Path = recipe((old, new))
    with pytest.raises(BadData, match=re.escape(named)) as error:
        read_recipe(str(file))
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_a_recipe_that_is_not_there_is_one_line() -> None:
    with pytest.raises(BadData, match="hilum, tuned and udacity come with Hilum"):
        read_recipe("nowhere.toml")


def test_a_recipe_needs_stages_or_an_exact_head(recipe) -> None:  # type: ignore[no-untyped-def]
    text = recipe().read_text(encoding="utf-8")
    bare = recipe((text[text.index("[[stages]]") :], ""))
    with pytest.raises(BadData, match=r"one or more \[\[stages\]\] are needed, or an \[exact\] head"):
        read_recipe(str(bare))


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (
            "[augmentation]",
            "[exact]\nstrengths = [1.0]\nborrowed = { Rib = 0.5 }\n[augmentation]",
            "'Rib' is none",
        ),
        (
            "hidden = []",
            "hidden = [8]\n[exact]\nstrengths = [1.0]\nborrowed = {}\n[other]",
            "other: is no key",
        ),
        ('"block5_pool"]', '"block5_pool/9"]', "network.pools: must be"),
    ],
)
def test_a_bad_exact_head_is_named(recipe, old: str, new: str, named: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BadData, match=re.escape(named)):
        read_recipe(str(recipe((old, new))))
