"""What a step makes smaller: cross-entropy of the labels that are known, and of what is learnt beside them.

A target is NaN where nobody knows it; it then adds nothing, and nothing flows back from it. Each loss is a mean over
the batch of a sum over labels, so that an image weighs the same whatever else is in its batch.

Targets are float32: `head` (n, labels), and `age`, `sex`, `view` (n, 1) where the recipe asks for them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import network
from model.network import HEAD
from model.table import Table
from model.train.recipe import Recipe

Floats = NDArray[np.float32]
Losses = dict[str, Callable[[Any, Any], Any]]

MIDDLE_AGE, SPREAD_OF_AGE = 50.0, 20.0
"""Years; what ages are measured by, near NIH's mean and spread (46.9 and 16.8)."""
OLDEST = 120.0
"""Years; an older one is an error of typing and unknown."""


def targets(table: Table, recipe: Recipe) -> dict[str, Floats]:
    """What is to be learnt of each image, by the output that learns it."""
    ages = np.where((table.ages >= 0) & (table.ages <= OLDEST), table.ages, np.nan)
    beside = {
        "age": (ages - MIDDLE_AGE) / SPREAD_OF_AGE,
        "sex": _either(table.sexes, "F", "M"),
        "view": _either(table.views, "AP", "PA"),
    }
    wanted = {
        name: values[:, None].astype(np.float32) for name, values in beside.items() if weight(recipe, name)
    }
    return {HEAD: table.labels.astype(np.float32), **wanted}


def weight(recipe: Recipe, output: str) -> float:
    """How much an output's loss counts; 0: there is no such output."""
    return 1.0 if output == HEAD else float(getattr(recipe.auxiliary, output))


def losses(recipe: Recipe, labels: Floats) -> Losses:
    """By output, functions of (targets, logits), both (n, m), to each image's loss, (n,).

    `labels`: the training images', by which classes are balanced.
    """
    up, down = class_weights(recipe, labels)
    each = np.array([recipe.loss.weights.get(label, 1.0) for label in recipe.labels], np.float32)
    each /= each.sum()

    def findings(truth: Any, logits: Any) -> Any:
        return _crossed(truth, logits, up * each, down * each, recipe.loss.smoothing, recipe.loss.robust)

    def either(truth: Any, logits: Any) -> Any:
        one = np.ones(1, np.float32)
        return _crossed(truth, logits, one, one, 0.0, 0.0)

    found: Losses = {HEAD: findings, "sex": either, "view": either, "age": _apart}
    return {output: loss for output, loss in found.items() if weight(recipe, output)}


def class_weights(recipe: Recipe, labels: Floats) -> tuple[Floats, Floats]:
    """What a positive and what a negative weighs, (labels,) each.

    Balanced: n / (2 n positives) and n / (2 n negatives) over the images where the label is known, as scikit-learn's
    `balanced`, at most the recipe's cap and at least one by the cap.
    """
    if recipe.loss.balance == "none":
        ones = np.ones(labels.shape[1], np.float32)
        return ones, ones
    positive, negative = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
    known, cap = positive + negative, recipe.loss.cap

    def share(count: NDArray[np.int64]) -> Floats:
        return np.clip(known / np.maximum(2 * count, 1), 1 / cap, cap).astype(np.float32)

    return share(positive), share(negative)


def _crossed(truth: Any, logits: Any, up: Floats, down: Floats, smoothing: float, robust: float) -> Any:
    """Binary cross-entropy; with `robust` = q > 0 the generalized one, (1 - p^q) / q, of Zhang and Sabuncu, 2018."""
    ops = network.keras().ops
    known = ops.logical_not(ops.isnan(truth))
    # NaN is taken out before anything is computed with it: 0 * NaN would be NaN again, in the gradient too
    truth = ops.where(known, truth, ops.zeros_like(truth))
    positive = truth * (1 - smoothing) + smoothing / 2
    log_yes, log_no = -ops.softplus(-logits), -ops.softplus(logits)
    if robust:
        missed, called = (1 - ops.exp(robust * log_yes)) / robust, (1 - ops.exp(robust * log_no)) / robust
    else:
        missed, called = -log_yes, -log_no
    weights = truth * up + (1 - truth) * down
    each = weights * (positive * missed + (1 - positive) * called)
    return ops.sum(each * ops.cast(known, each.dtype), axis=-1)


def _apart(truth: Any, value: Any) -> Any:
    """Huber's loss: squared up to one spread, then in proportion."""
    ops = network.keras().ops
    known = ops.logical_not(ops.isnan(truth))
    apart = ops.abs(ops.where(known, truth, ops.zeros_like(truth)) - value)
    each = ops.where(apart < 1, ops.square(apart) / 2, apart - 0.5)
    return ops.sum(each * ops.cast(known, each.dtype), axis=-1)


def _either(words: NDArray[np.str_], one: str, zero: str) -> NDArray[np.float64]:
    return np.where(words == one, 1.0, np.where(words == zero, 0.0, np.nan))
