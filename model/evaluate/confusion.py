"""What a threshold does: the confusion matrix and what follows from it, with intervals by patient."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.evaluate.auroc import Scores
from model.evaluate.draws import Drawn, Draws, Estimate, estimate, share


@dataclass(frozen=True)
class Predictive:
    """PPV and NPV where the finding has another prevalence than in the images judged, by Bayes' rule.

    It takes sensitivity and specificity for the same there, which holds only where the patients are alike.
    """

    prevalence: float
    ppv: Estimate
    npv: Estimate


@dataclass(frozen=True)
class Confusion:
    """A finding is called where the score is not below the threshold."""

    threshold: float
    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int
    prevalence: float
    """The share of positives among the images judged; PPV and NPV are at this one."""
    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate
    f1: Estimate
    elsewhere: tuple[Predictive, ...]


def confusion(
    truth: NDArray[np.float32],
    score: Scores,
    threshold: float,
    draws: Draws,
    prevalences: Sequence[float] = (),
) -> Confusion:
    """`truth` is 1 or 0 everywhere. A share of nothing (the PPV where nothing is called) is NaN."""
    called, positive = score >= threshold, truth == 1
    cells = np.stack([called & positive, called & ~positive, ~called & positive, ~called & ~positive], axis=1)
    sums = draws.sums(cells)
    tp, fp, fn, tn = sums.T
    sensitivity, specificity = share(tp, tp + fn), share(tn, tn + fp)
    return Confusion(
        threshold,
        true_positive=int(tp[0]),
        false_positive=int(fp[0]),
        false_negative=int(fn[0]),
        true_negative=int(tn[0]),
        prevalence=float(positive.mean()),
        sensitivity=estimate(sensitivity),
        specificity=estimate(specificity),
        ppv=estimate(share(tp, tp + fp)),
        npv=estimate(share(tn, tn + fn)),
        f1=estimate(share(2 * tp, 2 * tp + fp + fn)),
        elsewhere=tuple(_elsewhere(sensitivity, specificity, prevalence) for prevalence in prevalences),
    )


def _elsewhere(sensitivity: Drawn, specificity: Drawn, prevalence: float) -> Predictive:
    with_it, without = prevalence, 1 - prevalence
    right, alarms = sensitivity * with_it, (1 - specificity) * without
    cleared, missed = specificity * without, (1 - sensitivity) * with_it
    return Predictive(
        prevalence, estimate(share(right, right + alarms)), estimate(share(cleared, cleared + missed))
    )
