"""Images and labels -> a head on VGG16's averages, and the thresholds that belong to it.

The convolutions stay as ImageNet left them, so that each picture goes through them once and all that follows works
on a table of averages: minutes on two cores. Each finding is its own logistic regression on the images where it is
known; unknown labels take part in nothing. Standardization is folded into the head's weights.

What is chosen (the strength of the regularization, the thresholds) is chosen by scores that a picture got from
models without its patient, among training patients only. scikit-learn and TensorFlow are imported inside functions.
"""

import hashlib
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model import network, pixels
from model.card import Card
from model.data import FOLDS, Table
from model.errors import BadModel
from model.evaluate import Scores, auroc
from model.network import Weights

BATCH = 8
FEWEST = 5
"""Positives (and negatives) without which a label can't be learnt from some rows: its score is then a constant."""

IMAGENET_MEAN = (103.939, 116.779, 123.68)
"""Of blue, green and red over ImageNet, as VGG16 was trained."""

Rows = NDArray[np.bool_]
Features = NDArray[np.float32]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Recipe:
    """model/recipes/*.toml, where each key is explained."""

    name: str
    version: str
    min_age: int
    test_fold: int
    size: int
    pools: tuple[str, ...]
    strengths: tuple[float, ...]
    specificity: float
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Head:
    """A linear layer: scores = sigmoid(features @ kernel + bias). kernel (features, labels), bias (labels,)."""

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]

    def scores(self, features: Features) -> Scores:
        """(n, features) -> (n, labels), each from 0 to 1."""
        return 1 / (1 + np.exp(-(features.astype(np.float64) @ self.kernel + self.bias)))


@dataclass(frozen=True)
class Trained:
    """What a training run leaves: the head, and what was chosen on the way, by which scores."""

    head: Head
    strength: float
    thresholds: dict[str, float]
    inner: Scores
    """The training rows' scores from models without their patients, in the table's order; NaN for test rows."""


def read_recipe(file: Path) -> Recipe:
    """Raises BadModel when the file is no TOML or its keys are not a recipe's."""
    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
        lists = {key: tuple(tree[key]) for key in ("pools", "strengths", "labels")}
        return Recipe(**(tree | lists))
    except (OSError, tomllib.TOMLDecodeError, TypeError, KeyError) as error:
        raise BadModel(f"{file}: is no recipe: {error}") from error


def card_of(recipe: Recipe) -> Card:
    """What a recipe says about the network and its input, as a card: thresholds and hash are not known yet."""
    return Card(
        name=recipe.name,
        version=recipe.version,
        intended_use="",
        limits="",
        folder=Path(),
        weights="weights.npz",
        sha256="",
        architecture="vgg16",
        pools=recipe.pools,
        size=recipe.size,
        fit="stretch",
        scale=255.0,
        mean=IMAGENET_MEAN,
        labels=recipe.labels,
        display={label: label.replace("_", " ") for label in recipe.labels},
        thresholds={},
        rule="",
    )


def prepare(image: Path, card: Card) -> NDArray[np.float32]:
    """A PNG's or JPEG's way into the network: the same two functions that a DICOM image goes through."""
    return pixels.prepare(pixels.read(pixels.wrap(image)), card)


def extract(
    table: Table, card: Card, base: Weights, cache: Path, progress: Progress | None = None
) -> Features:
    """The pools' averages of every image, (n, features).

    They are kept in the folder `cache` under a hash of the prepared pictures, the weights and the pools, so that
    a second run takes seconds and no change of the preprocessing can be missed.
    """
    key = hashlib.sha256(repr(card.pools).encode())
    for name in sorted(base):
        key.update(base[name].tobytes())
    for image in table.images:
        key.update(prepare(image, card).tobytes())
    kept = cache / f"{key.hexdigest()[:32]}.npy"
    if kept.exists():
        return np.asarray(np.load(kept, allow_pickle=False), np.float32)

    below = network.averages(card.size, card.pools)
    network.fill(below, base)
    import tensorflow

    shape = tensorflow.TensorSpec((None, card.size, card.size, 3), tensorflow.float32)
    run = tensorflow.function(
        lambda batch: below(batch, training=False), input_signature=[shape], autograph=False
    )
    found = []
    for start in range(0, len(table), BATCH):
        batch = np.stack([prepare(image, card) for image in table.images[start : start + BATCH]])
        found.append(run(batch).numpy())
        if progress:
            progress(min(start + BATCH, len(table)), len(table))
    together = np.concatenate(found)
    cache.mkdir(parents=True, exist_ok=True)
    np.save(kept, together, allow_pickle=False)
    return together


def fit_head(features: Features, labels: NDArray[np.float32], rows: Rows, strength: float) -> Head:
    """One logistic regression a label, on the rows of `rows` where the label is known.

    `strength` is scikit-learn's C: smaller is more regularized.
    A label with fewer than FEWEST positives or negatives among the rows becomes a constant: its share.
    """
    from sklearn.linear_model import LogisticRegression

    kernel = np.zeros((features.shape[1], labels.shape[1]))
    bias = np.zeros(labels.shape[1])
    for column, truth in enumerate(labels.T):
        known = rows & ~np.isnan(truth)
        positive = int((truth[known] == 1).sum())
        if min(positive, int(known.sum()) - positive) < FEWEST:
            share = (positive + 1) / (known.sum() + 2)
            bias[column] = np.log(share / (1 - share))
            continue
        x = features[known].astype(np.float64)
        middle, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
        fitted = LogisticRegression(C=strength, max_iter=1000, tol=1e-3)
        fitted.fit(((x - middle) / spread).astype(np.float32), truth[known])
        kernel[:, column] = fitted.coef_[0] / spread
        bias[column] = fitted.intercept_[0] - (fitted.coef_[0] * middle / spread).sum()
    return Head(kernel.astype(np.float32), bias.astype(np.float32))


def inner_scores(features: Features, table: Table, rows: Rows, strength: float) -> Scores:
    """Each row of `rows` scored by a head that saw none of its fold; NaN for all other rows."""
    scores = np.full(table.labels.shape, np.nan)
    for fold in range(FOLDS):
        here = rows & (table.folds == fold)
        if here.any():
            scores[here] = fit_head(features, table.labels, rows & ~here, strength).scores(features[here])
    return scores


def choose(features: Features, table: Table, rows: Rows, recipe: Recipe) -> tuple[float, Scores]:
    """The strength with the best mean AUROC of all labels over `rows`, out of fold; and its scores."""
    tried = {strength: inner_scores(features, table, rows, strength) for strength in recipe.strengths}

    def mean(strength: float) -> float:
        inside = table.only(rows)
        each = [auroc(inside, tried[strength][rows], [name], resamples=0) for name in table.names]
        return float(np.mean([figure.auroc for figure in each if figure]))

    best = max(recipe.strengths, key=mean)
    return best, tried[best]


def thresholds(table: Table, scores: Scores, specificity: float) -> dict[str, float]:
    """Per label the least score (to four digits, upwards) that leaves `specificity` of the images without it below.

    Rows whose label or score is NaN take no part.
    """
    found = {}
    for column, name in enumerate(table.names):
        without = scores[(table[name] == 0) & ~np.isnan(scores[:, column]), column]
        found[name] = min(1.0, float(np.floor(np.quantile(without, specificity) * 1e4) + 1) / 1e4)
    return found


def train(features: Features, table: Table, recipe: Recipe) -> Trained:
    """Chooses, then fits on all patients outside the test fold. The test fold's rows are never touched."""
    rows = table.folds != recipe.test_fold
    strength, inner = choose(features, table, rows, recipe)
    head = fit_head(features, table.labels, rows, strength)
    return Trained(head, strength, thresholds(table, inner, recipe.specificity), inner)


def cross_validate(features: Features, table: Table, recipe: Recipe) -> Scores:
    """The whole recipe, its choices included, once without each fold: every row's score by a model without it.

    These scores judge the recipe, on five times the patients of the test fold; they are no scores of the model
    that `train` returns.
    """
    scores = np.full(table.labels.shape, np.nan)
    for fold in range(FOLDS):
        scores_of = train(features, table, replace(recipe, test_fold=fold)).head
        here = table.folds == fold
        scores[here] = scores_of.scores(features[here])
    return scores
