"""Curves over all thresholds: ROC, precision and recall, and the decision curve."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.evaluate.auroc import Scores
from model.evaluate.draws import Draws

POINTS = 200
"""A curve is thinned to this many points; its ends are kept."""

RISKS = np.round(np.arange(0.01, 1, 0.01), 2)
"""At which the decision curve is computed."""

Line = list[float]


@dataclass(frozen=True)
class Curve:
    x: Line
    y: Line


@dataclass(frozen=True)
class Decision:
    """Net benefit at each risk from which on one would act (Vickers and Elkin 2006): the share of true positives,
    less that of false positives at the odds of the risk. It takes the score for a probability."""

    risk: Line
    model: Line
    low: Line
    high: Line
    """The model's 95 % interval."""
    treat_all: Line
    """Acting on everybody; acting on nobody is 0 everywhere."""


def roc(truth: NDArray[np.float32], score: Scores) -> Curve:
    """x: 1 - specificity, y: sensitivity."""
    from sklearn.metrics import roc_curve

    x, y, _ = roc_curve(truth, score)
    return _thinned(x, y)


def precision_recall(truth: NDArray[np.float32], score: Scores) -> Curve:
    """x: recall (sensitivity), y: precision (PPV)."""
    from sklearn.metrics import precision_recall_curve

    y, x, _ = precision_recall_curve(truth, score)
    return _thinned(x[::-1], y[::-1])


def decision(truth: NDArray[np.float32], score: Scores, draws: Draws) -> Decision:
    called = score[:, None] >= RISKS
    positive = (truth == 1)[:, None]
    sums = draws.sums(np.column_stack([called & positive, called & ~positive, positive, ~positive]))
    k = len(RISKS)
    right, wrong, of_up, of_down = sums[:, :k], sums[:, k : 2 * k], sums[:, [2 * k]], sums[:, [2 * k + 1]]
    odds = RISKS / (1 - RISKS)
    benefit = (right - wrong * odds) / (of_up + of_down)
    low, high = np.percentile(benefit, [2.5, 97.5], axis=0)
    everybody = (of_up[0] - of_down[0] * odds) / (of_up[0] + of_down[0])
    return Decision(RISKS.tolist(), benefit[0].tolist(), low.tolist(), high.tolist(), everybody.tolist())


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> Curve:
    kept = np.unique(np.linspace(0, len(x) - 1, min(POINTS, len(x))).round().astype(int))
    return Curve(x[kept].tolist(), y[kept].tolist())
