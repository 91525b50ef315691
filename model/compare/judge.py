"""Truth and two models' scores -> what tells them apart, a label at a time and on the mean.

Every figure of the first and of the second is computed on the same draws of patients, so that what is hard about a
patient falls out of the difference: it is told apart where either alone is not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.evaluate.auroc import Scores, enough, known, mean, ranked
from model.evaluate.calibration import drawn_brier, drawn_ece
from model.evaluate.draws import Drawn, Draws, Estimate, draw, estimate, share
from model.table import Table

FIGURES = ("AUROC", "sensitivity", "specificity", "F1", "Brier", "ECE")
LOWER_IS_BETTER = ("Brier", "ECE")


@dataclass(frozen=True)
class Pair:
    """One figure of both models, and the first less the second on the same draws."""

    first: Estimate
    second: Estimate
    difference: Estimate

    @property
    def verdict(self) -> str:
        """What the interval of the difference allows to say."""
        if self.difference.low > 0:
            return "over zero"
        return "under zero" if self.difference.high < 0 else "not told apart"


@dataclass(frozen=True)
class Agreement:
    """Which of the images each model calls, at its own threshold; and who is right where they differ."""

    both: int
    only_first: int
    only_second: int
    none: int
    first_right: int
    """Of the images that one calls and the other does not: those where the first is right."""
    second_right: int
    p: float
    """McNemar's exact test of these two numbers, images taken as independent: 1 where they never differ."""


@dataclass(frozen=True)
class Apart:
    """An image on which scores are far apart."""

    row: int
    """Of the table."""
    first: float
    second: float
    truth: float
    """1, 0, or NaN where nobody looked."""


@dataclass(frozen=True)
class Label:
    images: int
    """On which it is known."""
    positive: int
    figures: dict[str, Pair]
    """FIGURES; empty where there are too few positives or negatives."""
    agreement: Agreement
    correlation: float
    """Of the ranks of both scores (Spearman), on all images; NaN where one is the same everywhere."""
    apart: tuple[Apart, ...]
    """Those with the largest distance of the two scores, largest first, known or not."""
    holm: float = np.nan
    """McNemar's p, corrected for the number of labels (Holm 1979)."""


@dataclass(frozen=True)
class Comparison:
    labels: dict[str, Label]
    mean: dict[str, Pair]
    """Of each figure over the labels that have enough of both; empty where none has."""


MOST_APART = 5


def judge(
    table: Table,
    first: Scores,
    second: Scores,
    thresholds: tuple[Mapping[str, float], Mapping[str, float]],
    *,
    resamples: int,
    seed: int,
) -> Comparison:
    """`first`, `second`: (n, labels of the table), none NaN; `thresholds`: each model's own."""
    draws = draw(table.patients, resamples, seed)
    drawn: dict[str, tuple[dict[str, Drawn], dict[str, Drawn]]] = {}
    for name in table.names:
        truth, a, of = known(table, first, draws, name)
        b = known(table, second, draws, name)[1]
        if enough(truth):
            drawn[name] = (
                _figures(truth, a, thresholds[0][name], of),
                _figures(truth, b, thresholds[1][name], of),
            )
    labels = {
        name: _label(table, name, first[:, n], second[:, n], thresholds, drawn.get(name))
        for n, name in enumerate(table.names)
    }
    together = {
        figure: Pair(
            estimate(mean({name: a[figure] for name, (a, _) in drawn.items()})),
            estimate(mean({name: b[figure] for name, (_, b) in drawn.items()})),
            estimate(mean({name: a[figure] - b[figure] for name, (a, b) in drawn.items()})),
        )
        for figure in FIGURES
        if drawn
    }
    return Comparison(_corrected(labels), together)


def _figures(truth: NDArray[np.float32], score: Scores, threshold: float, draws: Draws) -> dict[str, Drawn]:
    called, positive = score >= threshold, truth == 1
    cells = np.stack([called & positive, called & ~positive, ~called & positive, ~called & ~positive], axis=1)
    tp, fp, fn, tn = draws.sums(cells).T
    return {
        "AUROC": ranked(truth, score, draws)[0],
        "sensitivity": share(tp, tp + fn),
        "specificity": share(tn, tn + fp),
        "F1": share(2 * tp, 2 * tp + fp + fn),
        "Brier": drawn_brier(truth, score, draws),
        "ECE": drawn_ece(truth, score, draws),
    }


def _pair(first: Drawn, second: Drawn) -> Pair:
    return Pair(estimate(first), estimate(second), estimate(first - second))


def _label(
    table: Table,
    name: str,
    first: Scores,
    second: Scores,
    thresholds: tuple[Mapping[str, float], Mapping[str, float]],
    drawn: tuple[dict[str, Drawn], dict[str, Drawn]] | None,
) -> Label:
    truth = table[name]
    seen = ~np.isnan(truth)
    far = np.argsort(-np.abs(first - second), kind="stable")[:MOST_APART]
    return Label(
        images=int(seen.sum()),
        positive=int((truth == 1).sum()),
        figures={f: _pair(drawn[0][f], drawn[1][f]) for f in FIGURES} if drawn else {},
        agreement=agreement(truth, first >= thresholds[0][name], second >= thresholds[1][name]),
        correlation=_correlation(first, second),
        apart=tuple(
            Apart(int(row), float(first[row]), float(second[row]), float(truth[row]))
            for row in far
            if first[row] != second[row]
        ),
    )


def agreement(truth: NDArray[np.float32], first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Agreement:
    """`truth` (n,) 1, 0, or NaN; the calls of both, (n,)."""
    from scipy.stats import binomtest

    differ = (first != second) & ~np.isnan(truth)
    right = int((first == (truth == 1))[differ].sum())
    wrong = int(differ.sum()) - right
    return Agreement(
        both=int((first & second).sum()),
        only_first=int((first & ~second).sum()),
        only_second=int((~first & second).sum()),
        none=int((~first & ~second).sum()),
        first_right=right,
        second_right=wrong,
        p=float(binomtest(right, right + wrong).pvalue) if right + wrong else 1.0,
    )


def _correlation(first: Scores, second: Scores) -> float:
    from scipy.stats import spearmanr

    if len(first) < 2 or first.min() == first.max() or second.min() == second.max():
        return float("nan")
    return float(spearmanr(first, second).statistic)


def _corrected(labels: Mapping[str, Label]) -> dict[str, Label]:
    """With Holm's correction over the labels that are known on some image."""
    order = sorted((n for n, x in labels.items() if x.images), key=lambda n: labels[n].agreement.p)
    least, found = 0.0, dict(labels)
    for place, name in enumerate(order):
        least = max(least, min(1.0, (len(order) - place) * labels[name].agreement.p))
        found[name] = replace(labels[name], holm=least)
    return found
