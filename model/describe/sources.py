"""Where a description's figures come from: the card with all that it says, an evaluation's report, a training run.

All of it is data from outside. Texts are taken plain, figures that are no numbers count as not known, and what belongs
to another model is refused.
"""

import csv
import hashlib
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model import card as cards
from model.card import CARD, Card
from model.errors import BadData, BadModel
from model.evaluate.draws import Estimate
from model.train.recipe import RECIPES, Recipe, parse

Tree = dict[str, Any]
HISTORY, RUN = "history.csv", "run.json"
"""What `hilum model train` leaves in its folder."""


@dataclass(frozen=True)
class Called:
    """What a threshold does with the images that were judged."""

    threshold: float
    prevalence: float
    sensitivity: Estimate | None
    specificity: Estimate | None
    ppv: Estimate | None
    npv: Estimate | None
    f1: Estimate | None


@dataclass(frozen=True)
class Judged:
    """One label in an evaluation's report; None where too few images were at hand."""

    images: int
    positive: int
    auroc: Estimate | None
    average_precision: Estimate | None
    called: Called | None
    ece: Estimate | None
    ece_by_chance: float | None
    roc: tuple[tuple[float, float], ...]
    """1 - specificity, sensitivity."""
    precision_recall: tuple[tuple[float, float], ...]
    """Recall, precision."""


@dataclass(frozen=True)
class Part:
    """A part of the images that were judged: a view, a sex, an age band, a collection."""

    images: int
    patients: int
    mean: Estimate | None
    labels: dict[str, tuple[Estimate, int, int]]
    """Label -> AUROC, images, positives."""


@dataclass(frozen=True)
class Report:
    """What `hilum model evaluate` measured."""

    table: str
    split: str
    images: int
    patients: int
    resamples: int
    unreadable: int
    limits: tuple[str, ...]
    labels: dict[str, Judged]
    parts: dict[str, dict[str, Part]]
    above_floors: dict[str, bool]
    """Label -> whether it lies above every floor, with the whole interval of each difference; those with floors."""
    pooled_ece: Estimate | None
    """Of all labels in one set of bins."""
    pooled_ece_by_chance: float | None


@dataclass(frozen=True)
class Sources:
    card: Card
    tree: Tree
    """All that card.toml says, every text of it plain."""
    report: Report | None = None
    recipe: Recipe | None = None
    """By which the model was trained, where its words are at hand."""
    history: tuple[Mapping[str, str], ...] = ()
    """Rows of history.csv: an epoch each."""

    def table(self, name: str) -> Tree:
        """A table of the card by its name; empty where there is none."""
        found = self.tree.get(name)
        return found if isinstance(found, dict) else {}

    def finding(self, label: str) -> Tree:
        """What the card says of a label."""
        return next(each for each in self.tree["findings"] if each["label"] == label)

    def judged(self, label: str) -> Judged | None:
        return self.report.labels.get(label) if self.report else None


def read(folder: Path, report: Path | None = None, training: Path | None = None) -> Sources:
    """The model in `folder`, its files verified; with an evaluation's report.json and a training run's folder.

    Raises BadModel for the folder, BadData for a report or a run that can't be read or is another model's.
    """
    card = cards.load(folder)
    cards.verify(card)
    tree = plain(tomllib.loads((folder / CARD).read_text(encoding="utf-8")))
    return Sources(
        card=card,
        tree=tree,
        report=_report(report, card) if report else None,
        recipe=_recipe_of_run(training, card) if training else _recipe_of_card(tree),
        history=_history(training) if training else (),
    )


def plain(value: Any) -> Any:
    """Texts on one line, without control characters and without backticks, which mean code; in lists and tables too."""
    if isinstance(value, str):
        printable = "".join(letter if letter.isprintable() else " " for letter in value)
        return " ".join(printable.replace("`", "'").split())
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadData(f"{file}: can't be read ({error.strerror or type(error).__name__})") from error
    except (ValueError, RecursionError) as error:
        raise BadData(f"{file}: is no JSON") from error


def _report(file: Path, card: Card) -> Report:
    told = plain(_json(file))
    try:
        found = _parsed(told)
        sha256 = told["model"]["sha256"]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BadData(f"{file}: is no report.json of `hilum model evaluate`") from error
    if sha256 != card.sha256:
        raise BadData(f"{file}: judges other weights than those of {card.folder}; evaluate this model first")
    if unknown := found.labels.keys() - set(card.labels):
        raise BadData(f"{file}: judges {sorted(unknown)[0]!r}, which is none of this model's findings")
    return found


def _parsed(told: Tree) -> Report:
    pooled = told.get("calibration_of_all_labels_pooled") or {}
    floors: dict[str, bool] = {}
    for wheres in told["floors"].values():
        for label, found in wheres["all"]["labels"].items():
            floors[label] = floors.get(label, True) and bool(found["over_zero"])
    return Report(
        table=str(told["table"]),
        split=str(told["split"]),
        images=int(told["images"]),
        patients=int(told["patients"]),
        resamples=int(told["resamples"]),
        unreadable=len(told["unreadable"]),
        limits=tuple(map(str, told["limits"])),
        labels={label: _judged(found) for label, found in told["labels"].items()},
        parts={
            kind: {value: _part(part) for value, part in parts.items()}
            for kind, parts in told["parts"].items()
        },
        above_floors=floors,
        pooled_ece=estimate(pooled.get("ece")),
        pooled_ece_by_chance=number(pooled.get("by_chance")),
    )


def _judged(found: Tree) -> Judged:
    at, calibration = found["at_threshold"], found["calibration"] or {}
    return Judged(
        images=int(found["images"]),
        positive=int(found["positive"]),
        auroc=estimate(found["auroc"]),
        average_precision=estimate(found["average_precision"]),
        called=at
        and Called(
            threshold=float(at["threshold"]),
            prevalence=float(at["prevalence"]),
            **{key: estimate(at[key]) for key in ("sensitivity", "specificity", "ppv", "npv", "f1")},
        ),
        ece=estimate(calibration.get("ece")),
        ece_by_chance=number(calibration.get("by_chance")),
        roc=_curve(found["roc"]),
        precision_recall=_curve(found["precision_recall"]),
    )


def _part(found: Tree) -> Part:
    labels = {
        label: (area, int(each["images"]), int(each["positive"]))
        for label, each in found["labels"].items()
        if (area := estimate(each["auroc"]))
    }
    return Part(int(found["images"]), int(found["patients"]), estimate(found["mean_auroc"]), labels)


def _curve(found: Tree | None) -> tuple[tuple[float, float], ...]:
    if not found:
        return ()
    points = zip(map(number, found["x"]), map(number, found["y"]), strict=True)
    return tuple((x, y) for x, y in points if x is not None and y is not None)


def estimate(found: Any) -> Estimate | None:
    """value, low, high of a report; None where one of them is no number."""
    if not isinstance(found, Mapping):
        return None
    value, low, high = (number(found.get(key)) for key in ("value", "low", "high"))
    return None if value is None or low is None or high is None else Estimate(value, low, high)


def number(value: Any) -> float | None:
    """A finite number; None for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _recipe_of_run(folder: Path, card: Card) -> Recipe:
    """The recipe of a run, which must be this model's. Raises BadData."""
    model = folder / "model"
    try:
        trained = cards.load(model).sha256
    except BadModel as error:
        raise BadData(f"{folder}: is no finished run of `hilum model train` ({error})") from error
    if trained != card.sha256:
        raise BadData(f"{folder}: trained other weights than those of {card.folder}")
    told = _json(folder / RUN)
    if not isinstance(told, Mapping) or not isinstance(told.get("recipe"), str):
        raise BadData(f"{folder / RUN}: names no recipe")
    return parse(told["recipe"], folder / RUN)


def _recipe_of_card(tree: Tree) -> Recipe | None:
    """The recipe that comes with Hilum and is the card's: by the hash of its words, else by name and version."""
    training = tree.get("training")
    if not isinstance(training, dict):
        return None
    for file in sorted(RECIPES.glob("*.toml")):
        text = file.read_text(encoding="utf-8")
        recipe = parse(text, file)
        sha256 = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        if (
            sha256 == training.get("recipe_sha256")
            or training.get("recipe") == f"{recipe.name} {recipe.version}"
        ):
            return recipe
    return None


def _history(folder: Path) -> tuple[Mapping[str, str], ...]:
    file = folder / HISTORY
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            return tuple(csv.DictReader(opened))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadData(f"{file}: can't be read ({type(error).__name__})") from error


def sentences(text: str) -> list[str]:
    """A text's sentences: each ends at a full stop, a semicolon excepted, before a capital or the end."""
    return [found for found in re.split(r"(?<=[.!?])\s+(?=[A-Z0-9])", text.strip()) if found]


def rows_of(value: Any) -> Sequence[Tree]:
    """A list of tables, however the card wrote it: `key = [{…}]`, `[[key]]`, or `[key] rows = [{…}]`."""
    if isinstance(value, Mapping):
        value = value.get("rows")
    if isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        return value
    return ()
