"""AUROC and average precision, with intervals by patient; and the difference between two scores on the same images.

Both come from one sorting: a positive image asks only how much weight of negatives, and of positives, lies below it.
25,596 images x 15 labels x 1,000 draws of their 2,797 patients take 4 s on one core.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.evaluate.draws import CHUNK, RESAMPLES, Drawn, Draws, draw, estimate
from model.table import Table

FEWEST = 5
"""Positives (and negatives) below which an AUROC is not reported at all."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """An AUROC (or a mean of several) with its 95 % interval, and what it was measured on."""

    auroc: float
    low: float
    high: float
    images: int
    positive: int


@dataclass(frozen=True)
class Difference:
    """AUROC of one score minus that of another on the same images (or the mean over labels), with its 95 % interval."""

    difference: float
    low: float
    high: float
    images: int
    positive: int

    @property
    def over_zero(self) -> bool:
        """The whole interval lies over zero."""
        return self.low > 0


def auroc(table: Table, scores: Scores, names: Sequence[str], *, resamples: int = RESAMPLES) -> Figure | None:
    """Mean AUROC of `names` over the rows where each is known; None where fewer than FEWEST are positive or negative.

    `scores`: (n, labels of the table). The interval: percentiles 2.5 and 97.5 of
    `resamples` draws of patients; without draws it is the point itself.
    """
    each = areas(table, scores, draw(table.patients, resamples), names)
    if len(each) < len(names):
        return None
    found = estimate(mean(each))
    return Figure(round(found.value, 3), round(found.low, 3), round(found.high, 3), *counts(table, names))


def paired_difference(
    table: Table, a: Scores, b: Scores, names: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> Difference | None:
    """Mean AUROC of `names` by the scores `a` less that by `b`, each draw of patients judging both.

    `a`, `b`: (n, labels of the table). None where a label has fewer than FEWEST positives or negatives.
    """
    draws = draw(table.patients, resamples, seed)
    first, second = areas(table, a, draws, names), areas(table, b, draws, names)
    if len(first) < len(names):
        return None
    return difference(table, first, second)


def difference(table: Table, first: dict[str, Drawn], second: dict[str, Drawn]) -> Difference:
    """Of what `areas` gave for two scores on the same table and draws."""
    found = estimate(mean(first) - mean(second))
    return Difference(found.value, found.low, found.high, *counts(table, list(first)))


def areas(table: Table, scores: Scores, draws: Draws, names: Sequence[str] | None = None) -> dict[str, Drawn]:
    """AUROC of each label that has FEWEST positives and negatives, in each draw."""
    found = {}
    for name in table.names if names is None else names:
        truth, score, of = known(table, scores, draws, name)
        if enough(truth):
            found[name] = ranked(truth, score, of)[0]
    return found


def known(table: Table, scores: Scores, draws: Draws, name: str) -> tuple[NDArray[np.float32], Scores, Draws]:
    """Truth, score and draws of the rows where a label is known."""
    rows = ~np.isnan(table[name])
    return table[name][rows], scores[rows, table.names.index(name)], draws.only(rows)


def enough(truth: NDArray[np.floating[Any]]) -> bool:
    return bool(min((truth == 1).sum(), (truth == 0).sum()) >= FEWEST)


def counts(table: Table, names: Sequence[str]) -> tuple[int, int]:
    """Images (of the label that is known on most) and positives (of all labels together)."""
    columns = [table[name] for name in names]
    return max(int((~np.isnan(c)).sum()) for c in columns), sum(int((c == 1).sum()) for c in columns)


def mean(each: dict[str, Drawn]) -> Drawn:
    """Over the labels; a label that a draw left without positives or negatives is no part of that draw's mean."""
    together = np.stack(list(each.values()))
    there = ~np.isnan(together)
    count = there.sum(axis=0)
    return np.where(count > 0, np.where(there, together, 0).sum(axis=0) / np.maximum(count, 1), np.nan)


def ranked(truth: NDArray[np.float32], score: Scores, draws: Draws) -> tuple[Drawn, Drawn]:
    """AUROC and average precision in each draw; NaN where it has no pair.

    AUROC: the share of (positive, negative) pairs in order, ties half. Average precision: the mean, over the positives,
    of the precision when everything that scores no less is called (scikit-learn's definition, ties together).
    """
    up, down = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
    up, down = up[np.argsort(score[up], kind="stable")], down[np.argsort(score[down], kind="stable")]
    low = np.searchsorted(score[down], score[up], side="left")
    high = np.searchsorted(score[down], score[up], side="right")
    under = np.searchsorted(score[up], score[up], side="left")
    who_up, who_down = draws.person[up], draws.person[down]

    area, precision = np.full((2, len(draws.weights)), np.nan)
    for at in range(0, len(draws.weights), CHUNK):
        weights = draws.weights[at : at + CHUNK]
        drawn = weights[:, who_up].astype(np.float64)
        positives, negatives = _running(weights, who_up), _running(weights, who_down)
        of_up, of_down = positives[:, -1].astype(np.float64), negatives[:, -1].astype(np.float64)
        below, reached = negatives[:, low].astype(np.float64), negatives[:, high]
        pairs = of_up * of_down
        ordered = (drawn * (below + reached)).sum(axis=1) / 2
        right, wrong = of_up[:, None] - positives[:, under], of_down[:, None] - below
        exact = np.divide(right, right + wrong, out=np.zeros_like(right), where=right > 0)
        chunk = slice(at, at + len(weights))
        np.divide(ordered, pairs, out=area[chunk], where=pairs > 0)
        np.divide((drawn * exact).sum(axis=1), of_up, out=precision[chunk], where=pairs > 0)
    return area, precision


def _running(weights: NDArray[np.float32], who: NDArray[np.int64]) -> NDArray[np.float32]:
    """(draws, images + 1): the weight of the images before each. float32 counts exactly up to 16,777,216."""
    sums = np.zeros((len(weights), len(who) + 1), np.float32)
    np.cumsum(weights[:, who], axis=1, out=sums[:, 1:])
    return sums


def operating_point(truth: NDArray[np.float32], score: Scores, threshold: float) -> tuple[float, float]:
    """Sensitivity and specificity of `score >= threshold` over the rows where the truth is known."""
    called = score >= threshold
    return round(float(called[truth == 1].mean()), 3), round(float(1 - called[truth == 0].mean()), 3)
