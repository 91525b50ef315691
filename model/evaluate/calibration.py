"""Is a score of 0.2 right in one case of five? Reliability, Brier score, expected calibration error.

Bins hold equally many images each (equal mass): bins of equal width leave most scores of a rare finding in one bin.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.evaluate.auroc import Scores
from model.evaluate.draws import Draws, Estimate, estimate, share

BINS = 10
INVENTED = 200
"""Invented truths behind `Calibration.by_chance`."""


@dataclass(frozen=True)
class Bin:
    """Images with neighbouring scores."""

    images: int
    score: float
    """Their mean score."""
    positive: Estimate
    """The share of positives among them."""


@dataclass(frozen=True)
class Calibration:
    bins: tuple[Bin, ...]
    brier: Estimate
    """Mean squared distance of score and truth."""
    brier_of_prevalence: float
    """Of a score that says the prevalence of the images judged every time."""
    ece: Estimate
    """Mean distance of mean score and share of positives over the bins, each with its weight."""
    by_chance: float
    """The ECE that a perfectly calibrated score would show on as many images: few images make an ECE by themselves."""


def calibration(truth: NDArray[np.float32], score: Scores, draws: Draws, *, seed: int = 0) -> Calibration:
    """`truth` is 1 or 0 everywhere, `score` from 0 to 1. Equal scores share a bin, so that there may be fewer bins."""
    edges = np.quantile(score, np.arange(1, BINS) / BINS)
    _, place = np.unique(np.searchsorted(edges, score, side="right"), return_inverse=True)
    inside = (place[:, None] == np.arange(place.max() + 1)).astype(np.float64)

    k = inside.shape[1]
    sums = draws.sums(np.column_stack([inside, inside * truth[:, None], inside * score[:, None]]))
    images, positive, said = sums[:, :k], sums[:, k : 2 * k], sums[:, 2 * k :]
    whole = images.sum(axis=1)
    squares = draws.sums(((score - truth) ** 2)[:, None])[:, 0]
    prevalence = float(truth.mean())

    random = np.random.default_rng(seed)
    invented = np.stack([(random.random(len(score)) < score) @ inside for _ in range(INVENTED)])
    return Calibration(
        bins=tuple(
            Bin(
                int(images[0, b]),
                float(said[0, b] / images[0, b]),
                estimate(share(positive[:, b], images[:, b])),
            )
            for b in range(k)
        ),
        brier=estimate(share(squares, whole)),
        brier_of_prevalence=prevalence * (1 - prevalence),
        ece=estimate(share(np.abs(said - positive).sum(axis=1), whole)),
        by_chance=float((np.abs(said[0] - invented).sum(axis=1) / len(score)).mean()),
    )
