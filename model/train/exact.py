"""The head over frozen layers, solved exactly: a logistic regression a label, all labels at once.

With few images this beat fine-tuning: learnt from half of the patients of 1,768 X-rays and judged on the other, VGG16's
last block tuned for six epochs came to a mean AUROC of 0.58 inside the most fairly chosen collection, this to 0.62.

Three things are learnt beside the head and left behind:

- an intercept a *collection* for each label: where images were collected by label, the collection tells the label, and
  a head without it would spend its weights on telling collections apart;
- the labels of images that nobody read for them (`borrowed`): a small regression from the other labels to this one,
  fitted where both are known, gives shares that count a little (Lung Opacity, known for a quarter of the images, is
  told in part by what the reports say);
- an intercept for those images in PA and in AP: who was read depends on the view.

The bias is then set so that scores are shares of the images that were learnt from.

scikit-learn and scipy are imported inside functions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.evaluate.auroc import enough
from model.table import Table

LOOSE = 0.1
"""How much an intercept is held to 0, beside the head's weights at 1: enough to keep it finite."""
BORROWING = 0.3
"""scikit-learn's C of the regression from labels to a label; 15 inputs, hardly a choice."""
FLAT = 1e-6
"""Directions in which the training features spread less than this share of the widest say nothing."""
ROUNDS = 80
"""Of L-BFGS. 400 of them changed a five-fold AUROC of 0.857 by nothing, and a mean of 0.658 to 0.654."""

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Rows = NDArray[np.bool_]


@dataclass(frozen=True)
class Head:
    """A linear layer: scores = sigmoid(features @ kernel + bias). kernel (features, labels), bias (labels,)."""

    kernel: Floats
    bias: Floats

    def scores(self, features: Floats) -> Doubles:
        """(n, features) -> (n, labels), each from 0 to 1."""
        return 1 / (1 + np.exp(-(features.astype(np.float64) @ self.kernel + self.bias)))


@dataclass(frozen=True)
class Lesson:
    """What a head is fitted to, n images: targets and weights (n, labels), and the intercepts left behind."""

    targets: Doubles
    weights: Doubles
    """0 where the label takes no part."""
    groups: Doubles
    """(n, groups), 1 where the image belongs to the group."""
    open: Doubles
    """(groups, labels), 1 where the group has an intercept of its own."""


def lesson(table: Table, rows: Rows, borrowed: Mapping[str, float]) -> Lesson:
    """What the rows of `rows` teach. `borrowed`: label -> weight of its shares where it is unknown, 0 to 1."""
    here = table.only(rows)
    known = ~np.isnan(here.labels)
    targets = np.nan_to_num(here.labels).astype(np.float64)
    weights = known.astype(np.float64)
    places = [place for place in np.unique(here.collections) if (here.collections != place).any()]
    groups = [here.collections == place for place in places]
    open_to = [np.ones(len(here.names)) for _ in places]
    for label, weight in borrowed.items():
        column = here.names.index(label)
        shares = borrow(here, column)
        unread = ~known[:, column]
        if shares is None or not unread.any():
            continue
        targets[unread, column] = shares[unread]
        weights[unread, column] = weight
        for each in open_to[: len(places)]:
            each[column] = 0
        for view in ("PA", "AP"):
            groups.append(unread & (here.views == view))
            open_to.append(np.arange(len(here.names)) == column)
    return Lesson(
        targets,
        weights,
        np.array(groups, np.float64).reshape(len(groups), len(here)).T,
        np.array(open_to, np.float64).reshape(len(groups), len(here.names)),
    )


def borrow(table: Table, column: int) -> Doubles | None:
    """The label of that column as the image's other labels tell it, (n,) shares; None where too few are known."""
    from sklearn.linear_model import LogisticRegression

    others = np.delete(table.labels, column, axis=1)
    told = ~np.isnan(others).any(axis=1)
    truth = table.labels[:, column]
    both = told & ~np.isnan(truth)
    if not enough(truth[both]):
        return None
    inputs = np.column_stack([others, (others == 0).all(axis=1)])
    fitted = LogisticRegression(C=BORROWING, max_iter=1000).fit(inputs[both], truth[both])
    shares = np.full(len(table), float(truth[both].mean()))
    shares[told] = fitted.predict_proba(inputs[told])[:, 1]
    return shares


def solve(features: Floats, widths: Sequence[int], given: Lesson, strengths: Sequence[float]) -> list[Head]:
    """A head for each of `strengths` (the likelihood's weight beside the squares of the head's weights).

    features: (n, f) of the lesson's images; `widths`: of the pools' parts, which add up to f. Each
    feature is brought to mean 0 and spread 1, and each pool counts as much as each other however many features it has.
    """
    x = features.astype(np.float64)
    middle = x.mean(axis=0)
    spread = x.std(axis=0) + 1e-6
    scale = np.concatenate([np.full(width, 1 / np.sqrt(width * len(widths))) for width in widths]) / spread
    x = (x - middle) * scale
    places, back = _spanned(x) if len(x) < x.shape[1] else (x, None)
    heads = []
    for strength in strengths:
        inside, bias = _minimum(places, given, strength)
        kernel = (inside if back is None else back @ inside) * scale[:, None]
        heads.append(Head(kernel.astype(np.float32), (bias - middle @ kernel).astype(np.float32)))
    return [_with_constants(head, given) for head in heads]


def _spanned(x: Doubles) -> tuple[Doubles, Doubles]:
    """n images span n directions at most, and the head lies in them: the images' places there, and the way back."""
    values, vectors = np.linalg.eigh(x @ x.T)
    kept = values > values[-1] * FLAT
    lengths = np.sqrt(values[kept])
    return vectors[:, kept] * lengths, x.T @ (vectors[:, kept] / lengths)


def _minimum(places: Doubles, given: Lesson, strength: float) -> tuple[Doubles, Doubles]:
    """Weights (directions, labels) and biases (labels,) with the least penalized cross-entropy."""
    from scipy.optimize import minimize

    directions, labels, groups = places.shape[1], given.targets.shape[1], given.groups.shape[1]
    ends = np.cumsum([directions * labels, labels])

    def parts(flat: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        weights, bias, intercepts = np.split(flat, ends)
        return weights.reshape(directions, labels), bias, intercepts.reshape(groups, labels)

    def loss(flat: Doubles) -> tuple[float, Doubles]:
        weights, bias, intercepts = parts(flat)
        logits = places @ weights + bias + given.groups @ (intercepts * given.open)
        costs = (np.logaddexp(0, logits) - given.targets * logits) * given.weights
        pull = (1 / (1 + np.exp(-np.clip(logits, -60, 60))) - given.targets) * given.weights * strength
        slopes = (
            places.T @ pull + weights,
            pull.sum(axis=0),
            (given.groups.T @ pull) * given.open + LOOSE * intercepts,
        )
        total = strength * costs.sum() + 0.5 * (weights**2).sum() + 0.5 * LOOSE * (intercepts**2).sum()
        return float(total), np.concatenate([slope.ravel() for slope in slopes])

    start = np.zeros(directions * labels + labels + groups * labels)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": ROUNDS}).x
    weights, _, _ = parts(found)
    return weights, _anchored(places @ weights, given)


def _anchored(logits: Doubles, given: Lesson) -> Doubles:
    """Biases (labels,) with which the mean score of the images that were read is the share of positives among them.

    The intercepts are left behind, and one of a collection that never has a label has no bound: without an anchor the
    scores of heads of different folds or strengths could not be put side by side.
    """
    from scipy.optimize import brentq
    from scipy.special import expit

    biases = np.zeros(logits.shape[1])
    for column in range(len(biases)):
        read = given.weights[:, column] == 1
        share = given.targets[read, column].mean() if read.any() else 0.5
        if 0 < share < 1:
            reached = logits[read, column]
            most = np.abs(reached).max() + 30
            biases[column] = brentq(lambda b, x=reached, s=share: expit(x + b).mean() - s, -most, most)
    return biases


def _with_constants(head: Head, given: Lesson) -> Head:
    """Labels without `enough` positives or negatives can't be learnt and become a constant: their share."""
    kernel, bias = head.kernel.copy(), head.bias.copy()
    for column in range(len(bias)):
        read = given.weights[:, column] == 1
        truth = given.targets[read, column]
        if not enough(truth):
            share = (truth.sum() + 1) / (len(truth) + 2)
            kernel[:, column], bias[column] = 0, np.log(share / (1 - share))
    return Head(kernel, bias)
