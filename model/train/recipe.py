"""A training recipe: a small TOML file that says all that a run does, read into frozen dataclasses.

Every key must be there and no other may: a forgotten or misspelt key would silently train something else. What each
key means stands beside it in the shipped recipes, model/recipes/hilum.toml, tuned.toml and udacity.toml.
"""

import math
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, get_args, get_type_hints

from model.card import DEEPEST, HEADS, LARGEST_SIDE, POOLS, WIDEST
from model.errors import BadData
from model.network import CONVOLUTIONS, pieces

RECIPES = Path(__file__).parents[1] / "recipes"
HEAVIEST = 1000.0
OPTIONAL = ("exact", "stages", "augmentation", "loss", "auxiliary")
"""A recipe has an exact head, stages, or both, the exact head first; the other three are for stages."""
NOTHING: Mapping[str, float] = MappingProxyType({})
RULE = re.compile(r"f1|youden|(sensitivity|specificity)=0?\.\d+")

Check = Callable[[Any], Any]
"""Gives back a key's value as the recipe keeps it; raises ValueError with what it must be."""


def _number(least: float, most: float) -> Check:
    def check(value: Any) -> float:
        if type(value) not in (int, float) or not math.isfinite(value) or not least <= value <= most:
            raise ValueError(f"must be a number from {least:g} to {most:g}")
        return float(value)

    return check


def _whole(least: int, most: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return value

    return check


def _words(pattern: str = r".*\S.*", should: str = "a text that is not empty") -> Check:
    def check(value: Any) -> str:
        if type(value) is not str or not re.fullmatch(pattern, value):
            raise ValueError(f"must be {should}")
        return value

    return check


def _one_of(*choices: str) -> Check:
    return _words("|".join(map(re.escape, choices)), " or ".join(map(repr, choices)))


def _list(each: Check, least: int, most: int) -> Check:
    def check(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or not least <= len(value) <= most:
            raise ValueError(f"must be a list of {least} to {most}")
        found = tuple(each(v) for v in value)
        if isinstance(next(iter(found), 0), str) and len(set(found)) != len(found):
            raise ValueError("must hold nothing twice")
        return found

    return check


def _flag() -> Check:
    def check(value: Any) -> bool:
        if type(value) is not bool:
            raise ValueError("must be true or false")
        return value

    return check


def _weights() -> Check:
    def check(value: Any) -> dict[str, float]:
        if type(value) is not dict:
            raise ValueError("must be a table of label = weight; {} for none")
        return {label: _number(0, HEAVIEST)(weight) for label, weight in value.items()}

    return check


@dataclass(frozen=True)
class Network:
    head: Annotated[str, _one_of(*HEADS)]
    pools: Annotated[tuple[str, ...], _list(_one_of(*POOLS), 1, len(POOLS))]
    hidden: Annotated[tuple[int, ...], _list(_whole(1, WIDEST), 0, DEEPEST)]
    dropout: Annotated[float, _number(0, 0.95)]
    standardize: Annotated[bool, _flag()]


@dataclass(frozen=True)
class Augmentation:
    rotation: Annotated[float, _number(0, 45)]
    scale: Annotated[float, _number(0, 0.5)]
    shift: Annotated[float, _number(0, 0.5)]
    contrast: Annotated[float, _number(0, 0.9)]
    brightness: Annotated[float, _number(0, 0.5)]
    gamma: Annotated[float, _number(0, 0.9)]
    noise: Annotated[float, _number(0, 0.5)]
    mirror: Annotated[bool, _flag()]


@dataclass(frozen=True)
class Exact:
    strengths: Annotated[tuple[float, ...], _list(_number(1e-6, 1e6), 0, 20)]
    borrowed: Annotated[Mapping[str, float], _weights()]


@dataclass(frozen=True)
class Loss:
    balance: Annotated[str, _one_of("none", "balanced")]
    cap: Annotated[float, _number(1, HEAVIEST)]
    smoothing: Annotated[float, _number(0, 0.5)]
    robust: Annotated[float, _number(0, 1)]
    weights: Annotated[Mapping[str, float], _weights()]


@dataclass(frozen=True)
class Auxiliary:
    age: Annotated[float, _number(0, HEAVIEST)]
    sex: Annotated[float, _number(0, HEAVIEST)]
    view: Annotated[float, _number(0, HEAVIEST)]


@dataclass(frozen=True)
class Training:
    views: Annotated[int, _whole(0, 1000)]
    average: Annotated[float, _number(0, 1000)]
    patience: Annotated[int, _whole(1, 1000)]
    precision: Annotated[str, _one_of("auto", "float32")]


@dataclass(frozen=True)
class Thresholds:
    rule: Annotated[str, _words(RULE.pattern, "f1, youden, sensitivity=0.… or specificity=0.…")]
    least: Annotated[int, _whole(1, 1000)]


@dataclass(frozen=True)
class Stage:
    name: Annotated[str, _words()]
    train: Annotated[
        str,
        _words(
            r"head|block[1-5]|" + "|".join(CONVOLUTIONS),
            "head, a block (block5) or a convolution (block5_conv3)",
        ),
    ]
    epochs: Annotated[int, _whole(1, 100_000)]
    rate: Annotated[float, _number(1e-9, 10)]
    optimizer: Annotated[str, _one_of("adam", "sgd")]
    weight_decay: Annotated[float, _number(0, 10)]
    schedule: Annotated[str, _one_of("constant", "cosine")]
    batch: Annotated[int, _whole(1, 4096)]

    @property
    def cut(self) -> str:
        """The first layer whose weights are trained; all before it are frozen."""
        return f"{self.train}_conv1" if re.fullmatch(r"block\d", self.train) else self.train


@dataclass(frozen=True)
class Recipe:
    """The file's keys under their own names; `[table]`s are the classes above."""

    name: Annotated[
        str, _words(r"[a-z0-9][a-z0-9-]{0,63}", "a short name of small letters, digits and hyphens")
    ]
    version: Annotated[str, _words(r"\d+\.\d+\.\d+", "a version like 1.0.0")]
    labels: Annotated[tuple[str, ...], _list(_words(), 1, 1000)]
    min_age: Annotated[int, _whole(0, 130)]
    size: Annotated[int, _whole(32, LARGEST_SIDE)]
    network: Network
    training: Training
    thresholds: Thresholds
    exact: Exact = Exact((), NOTHING)
    stages: tuple[Stage, ...] = ()
    augmentation: Augmentation = Augmentation(0, 0, 0, 0, 0, 0, 0, mirror=False)
    loss: Loss = Loss("none", 1, 0, 0, NOTHING)
    auxiliary: Auxiliary = Auxiliary(0, 0, 0)


def recipe_file(recipe: str) -> Path:
    """`hilum`, `tuned` and `udacity` come with the package; all else is a path."""
    shipped = RECIPES / f"{recipe}.toml"
    return shipped if re.fullmatch(r"[a-z0-9-]+", recipe) and shipped.exists() else Path(recipe)


def parse(text: str, file: Path) -> Recipe:
    """The recipe in `text`, which is the content of `file`. Raises BadData naming the file and the key."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadData(f"{file}: is no TOML file: {error}") from error
    recipe: Recipe = _table(Recipe, tree, file, "")
    _agree(recipe, file, tree.keys())
    return recipe


def read_recipe(recipe: str) -> Recipe:
    """A recipe by its name or its file. Raises BadData."""
    file = recipe_file(recipe)
    return parse(text_of(file), file)


def text_of(file: Path) -> str:
    """The recipe's own words. Raises BadData when they can't be read."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise BadData(
            f"{file}: recipe can't be read ({reason}); hilum, tuned and udacity come with Hilum"
        ) from error


def _table(kind: Any, tree: Any, file: Path, where: str) -> Any:
    """A dataclass from a TOML table; tables within by their own classes."""
    if not isinstance(tree, dict):
        raise BadData(f"{file}: {where.rstrip('.')}: must be a table")
    known = [each.name for each in fields(kind)]
    for key in tree.keys() - set(known):
        raise BadData(f"{file}: {where}{key}: is no key of a recipe; {', '.join(known)} are")
    hints = get_type_hints(kind, include_extras=True)
    values: dict[str, Any] = {}
    for key in known:
        if key not in tree and kind is Recipe and key in OPTIONAL:
            continue
        if key not in tree:
            raise BadData(f"{file}: {where}{key}: is missing")
        hint, inner = hints[key], get_args(hints[key])
        if is_dataclass(hint):
            values[key] = _table(hint, tree[key], file, f"{where}{key}.")
        elif is_dataclass(inner[0]):
            if not isinstance(tree[key], list) or not tree[key]:
                raise BadData(f"{file}: {key}: must be one or more [[{key}]] tables")
            values[key] = tuple(_table(inner[0], t, file, f"{key}[{i}].") for i, t in enumerate(tree[key]))
        else:
            try:
                values[key] = inner[1](tree[key])
            except ValueError as error:
                raise BadData(f"{file}: {where}{key}: {error}, not {tree[key]!r}") from error
    return kind(**values)


def _agree(recipe: Recipe, file: Path, given: Collection[str]) -> None:
    """What no key can say alone."""
    network = recipe.network
    if network.head == "flatten" and (len(network.pools) != 1 or "/" in network.pools[0]):
        raise BadData(
            f"{file}: network.pools: must be one pool without regions where network.head is 'flatten'"
        )
    for table in ("augmentation", "loss", "auxiliary"):
        if recipe.stages and table not in given:
            raise BadData(f"{file}: {table}: is missing")
    if not recipe.stages and not recipe.exact.strengths:
        raise BadData(f"{file}: stages: one or more [[stages]] are needed, or an [exact] head with strengths")
    if recipe.exact.strengths and (network.head == "flatten" or network.hidden):
        raise BadData(f"{file}: exact: solves a head of averages or roots without hidden layers")
    for label in recipe.exact.borrowed.keys() - set(recipe.labels):
        raise BadData(f"{file}: exact.borrowed: {label!r} is none of the labels")
    if "mean" in recipe.labels:
        raise BadData(f"{file}: labels: 'mean' is what the reports call the mean of all labels")
    for label in recipe.loss.weights.keys() - set(recipe.labels):
        raise BadData(f"{file}: loss.weights: {label!r} is none of the labels")
    for number, stage in enumerate(recipe.stages):
        if stage.cut not in pieces(network.pools):
            raise BadData(f"{file}: stages[{number}].train: no pool of the network lies above {stage.train}")
    if len({stage.name for stage in recipe.stages}) != len(recipe.stages):
        raise BadData(f"{file}: stages: each stage needs a name of its own")
