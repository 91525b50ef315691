"""How good scores are after an epoch, on the validation images: figures that a person follows while it trains."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

FIGURES = ("auroc", "accuracy", "precision", "recall", "f1")
AT = 0.5
"""The score from which on a finding counts as called, until thresholds are chosen at the end. AUROC needs none."""
MEAN = "mean"


class Measured(TypedDict):
    loss: float
    """Binary cross-entropy of what is known, without any weight."""
    labels: dict[str, dict[str, float]]
    """Label, or `mean`, -> figure -> value; NaN where it can't be said."""


def measure(
    truth: NDArray[np.float32],
    scores: NDArray[np.floating[Any]],
    labels: Sequence[str],
    least: int,
    thresholds: Mapping[str, float] | None = None,
) -> Measured:
    """`truth` (n, labels) 1, 0 or NaN unknown; `scores` (n, labels), NaN for images that were left out.

    `thresholds`: a label's, from which on it counts as called; AT without them. The mean is over the labels with at
    least `least` positives and negatives.
    """
    found = {}
    for column, label in enumerate(labels):
        known = ~np.isnan(truth[:, column]) & ~np.isnan(scores[:, column])
        called = scores[known, column] >= (thresholds[label] if thresholds else AT)
        found[label] = _figures(truth[known, column], scores[known, column], called)
    counted = counting(truth, least)
    chosen = [found[label] for label, counts in zip(labels, counted, strict=True) if counts]
    found[MEAN] = {
        figure: float(np.mean([each[figure] for each in chosen])) if chosen else float("nan")
        for figure in FIGURES
    }
    known = ~np.isnan(truth) & ~np.isnan(scores)
    sure = np.clip(scores[known].astype(np.float64), 1e-7, 1 - 1e-7)
    entropy = -np.log(np.where(truth[known] == 1, sure, 1 - sure))
    return Measured(loss=float(entropy.mean()), labels=found)


def counting(truth: NDArray[np.float32], least: int) -> NDArray[np.bool_]:
    """(labels,): which have at least `least` positives and as many negatives."""
    return ((truth == 1).sum(axis=0) >= least) & ((truth == 0).sum(axis=0) >= least)


def _figures(
    truth: NDArray[np.float32], score: NDArray[np.floating[Any]], called: NDArray[np.bool_]
) -> dict[str, float]:
    is_there = truth == 1
    hit, yes, no = int((called & is_there).sum()), int(is_there.sum()), int((~is_there).sum())
    precision = hit / int(called.sum()) if called.any() else 0.0
    recall = hit / yes if yes else float("nan")
    area = float("nan")
    if yes and no:
        from sklearn.metrics import roc_auc_score

        area = float(roc_auc_score(is_there, score))
    return {
        "auroc": area,
        "accuracy": float((called == is_there).mean()) if len(truth) else float("nan"),
        "precision": precision,
        "recall": recall,
        "f1": 2 * hit / (int(called.sum()) + yes) if yes else float("nan"),
    }
