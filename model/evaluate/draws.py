"""Drawing patients: the doubt behind every figure.

Images of one patient resemble each other, so that an interval comes from drawing patients, each with all of his or her
images, and not from drawing images (the cluster bootstrap; Efron and Tibshirani 1993, 8). Every figure of an evaluation
is computed on the same draws, so that two of them can be compared draw by draw.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
CHUNK = 64
"""Draws that are worked on at once: their running sums over 112,120 images take 30 MB."""

Drawn = NDArray[np.float64]
"""(1 + resamples,): a figure as measured, then as each draw has it; NaN where a draw does not determine it."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval: percentiles 2.5 and 97.5 of the draws. NaN where the images don't give it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "-"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Draws:
    weights: NDArray[np.float32]
    """(1 + resamples, patients): how often each patient was drawn. The first row is all ones: the data themselves."""
    person: NDArray[np.int64]
    """(n,): each image's patient, as a column of `weights`."""

    def only(self, rows: NDArray[np.bool_]) -> "Draws":
        """The same draws, seen by the images where `rows` is true."""
        return Draws(self.weights, self.person[rows])

    def sums(self, columns: NDArray[np.generic]) -> NDArray[np.float64]:
        """Sums over the images of each draw: (n, k) -> (1 + resamples, k)."""
        patients = self.weights.shape[1]
        values = np.asarray(columns, np.float64)
        each = np.stack([np.bincount(self.person, column, patients) for column in values.T], axis=1)
        chunks = range(0, len(self.weights), CHUNK)
        return np.concatenate([self.weights[at : at + CHUNK].astype(np.float64) @ each for at in chunks])

    def sums_by(self, place: NDArray[np.int64], values: NDArray[np.generic]) -> NDArray[np.float64]:
        """Sums of one column within each of k places: (n,) places from 0 on, (n,) -> (1 + resamples, k)."""
        patients, k = self.weights.shape[1], int(place.max()) + 1
        each = np.bincount(self.person * k + place, np.asarray(values, np.float64), patients * k)
        each = each.reshape(patients, k)
        chunks = range(0, len(self.weights), CHUNK)
        return np.concatenate([self.weights[at : at + CHUNK].astype(np.float64) @ each for at in chunks])


def draw(patients: NDArray[np.str_], resamples: int = RESAMPLES, seed: int = 0) -> Draws:
    """`resamples` times as many patients as there are, with replacement. An image that names none is a patient."""
    names = np.where(patients == "", np.array([f"image {i}" for i in range(len(patients))]), patients)
    people, person = np.unique(names, return_inverse=True)
    random = np.random.default_rng(seed)
    weights = np.ones((1 + resamples, len(people)), np.float32)
    for row in range(1, 1 + resamples):
        weights[row] = np.bincount(random.integers(0, len(people), len(people)), minlength=len(people))
    return Draws(weights, person.astype(np.int64))


def estimate(drawn: Drawn) -> Estimate:
    """Without draws the interval is the point itself."""
    if np.isnan(drawn[0]):
        return Estimate(np.nan, np.nan, np.nan)
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Estimate(float(drawn[0]), float(low), float(high))


def share(part: Drawn, whole: Drawn) -> Drawn:
    """part / whole, NaN where the whole is nothing."""
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole != 0)
