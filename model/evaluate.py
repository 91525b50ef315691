"""How good is it: AUROC with intervals by patient, and the floors that a model must beat.

Images of one patient resemble each other, so that intervals come from drawing patients, not images. The floors say
what the same rows give without reading the picture: whatever doesn't clear them has learnt the collection, the view
or a thumbnail.

scikit-learn belongs to the extra `train` and is imported inside functions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.data import Table

RESAMPLES = 1000
FEWEST = 5
"""Positives below which an AUROC is not reported at all."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """An AUROC (or a mean of several) with its 95 % interval, and what it was measured on."""

    auroc: float
    low: float
    high: float
    images: int
    positive: int


def auroc(table: Table, scores: Scores, names: Sequence[str], *, resamples: int = RESAMPLES) -> Figure | None:
    """Mean AUROC of `names` over the rows where each is known; None where fewer than FEWEST are positive or negative.

    `scores`: (n, labels of the table). The interval: percentiles 2.5 and 97.5 of
    `resamples` draws of patients; without draws it is the point itself.
    """
    columns: list[tuple[NDArray[np.float32], Scores, NDArray[np.int64]]] = []
    for name in names:
        truth = table[name]
        known = ~np.isnan(truth)
        if min((truth[known] == 1).sum(), (truth[known] == 0).sum()) < FEWEST:
            return None
        columns.append((truth[known], scores[known, table.names.index(name)], np.flatnonzero(known)))

    point = float(np.mean([_area(truth, score, np.ones(len(rows))) for truth, score, rows in columns]))
    people, person = np.unique(table.patients, return_inverse=True)
    random = np.random.default_rng(0)
    drawn = [point]
    for _ in range(resamples):
        weight = np.bincount(random.integers(0, len(people), len(people)), minlength=len(people))[person]
        areas = np.array([_area(truth, score, weight[rows]) for truth, score, rows in columns])
        if not np.isnan(areas).all():
            drawn.append(float(np.nanmean(areas)))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Figure(
        auroc=round(point, 3),
        low=round(float(low), 3),
        high=round(float(high), 3),
        images=max(len(rows) for _, _, rows in columns),
        positive=sum(int(truth.sum()) for truth, _, _ in columns),
    )


def _area(truth: NDArray[np.float32], score: Scores, weight: NDArray[np.generic]) -> float:
    """AUROC with a weight a row: the share of (positive, negative) pairs in order, ties half; NaN without pairs."""
    levels, place = np.unique(score, return_inverse=True)
    up = np.bincount(place, weight * (truth == 1), len(levels))
    down = np.bincount(place, weight * (truth == 0), len(levels))
    pairs = up.sum() * down.sum()
    return float((up * (np.cumsum(down) - down / 2)).sum() / pairs) if pairs else float("nan")


def operating_point(truth: NDArray[np.float32], score: Scores, threshold: float) -> tuple[float, float]:
    """Sensitivity and specificity of `score >= threshold` over the rows where the truth is known."""
    called = score >= threshold
    return round(float(called[truth == 1].mean()), 3), round(float(1 - called[truth == 0].mean()), 3)


def floors(table: Table) -> dict[str, tuple[NDArray[np.float64], float]]:
    """Inputs that are no reading of the picture: name -> (features (n, f), strength C of the logistic regression)."""
    from PIL import Image

    thumbs = []
    for image in table.images:
        with Image.open(image) as opened:
            thumb = np.asarray(opened.convert("L").resize((32, 32), Image.Resampling.BOX), np.float64).ravel()
        thumbs.append((thumb - thumb.mean()) / (thumb.std() + 1e-6))
    age = np.clip(table.ages.astype(np.float64), 0, 100)
    about = np.stack([age, age**2 / 100, table.sexes == "M", table.views == "AP"], axis=1).astype(np.float64)
    places = np.unique(table.collections)
    source = (table.collections[:, None] == places[None]).astype(np.float64)
    return {
        "age, sex and view": (about, 1.0),
        "32 x 32 thumbnail": (np.stack(thumbs), 3e-4),
        "collection": (source, 1.0),
    }
