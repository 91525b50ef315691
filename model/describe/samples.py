"""How many images a study needs, so that a figure's 95 % interval will lie above a floor with a given power."""

import math
from dataclasses import dataclass
from statistics import NormalDist

from model.describe.figures import overlap_of_f1

MOST = 10_000_000
"""Positives at which the search for a number ends: nobody has as many."""


@dataclass(frozen=True)
class Target:
    """What a study wants to show of one figure: that it lies above `floor`, if it is `expected`."""

    floor: float
    expected: float


@dataclass(frozen=True)
class Asked:
    """Both as shares. `power`: of showing it, if the expected figure is the true one."""

    confidence: float
    power: float
    prevalence: float

    @property
    def z(self) -> tuple[float, float]:
        """Of the two-sided confidence, and of the power."""
        normal = NormalDist()
        return normal.inv_cdf((1 + self.confidence) / 2), normal.inv_cdf(self.power)


def trials(target: Target, asked: Asked) -> int:
    """For a share of n: n = ((z1 sqrt(p0 (1 - p0)) + z2 sqrt(p1 (1 - p1))) / (p1 - p0))^2 (normal approximation)."""
    first, second = asked.z
    p0, p1 = target.floor, target.expected
    root = first * math.sqrt(p0 * (1 - p0)) + second * math.sqrt(p1 * (1 - p1))
    return math.ceil((root / (p1 - p0)) ** 2)


def for_sensitivity(target: Target, asked: Asked) -> int:
    """Images: the trials are those with the finding."""
    return math.ceil(trials(target, asked) / asked.prevalence)


def for_specificity(target: Target, asked: Asked) -> int:
    """Images: the trials are those without the finding."""
    return math.ceil(trials(target, asked) / (1 - asked.prevalence))


def for_f1(target: Target, sensitivity: float, asked: Asked) -> int:
    """Images. F1 = 2J / (1 + J), where J = TP / (TP + FP + FN) is a share: the trials are the images that are called or
    have the finding. How many those are of all follows from prevalence, the expected F1 and the expected sensitivity.
    """
    overlap = Target(overlap_of_f1(target.floor), overlap_of_f1(target.expected))
    right = sensitivity * asked.prevalence
    return math.ceil(trials(overlap, asked) / (right / overlap.expected))


def for_auroc(target: Target, asked: Asked) -> int:
    """Images, by the variance of Hanley and McNeil (1982)."""
    first, second = asked.z
    ratio = (1 - asked.prevalence) / asked.prevalence

    def reach(positives: int) -> float:
        return first * _deviation(target.floor, positives, ratio) + second * _deviation(
            target.expected, positives, ratio
        )

    low, high = 2, MOST
    while low < high:
        middle = (low + high) // 2
        if reach(middle) <= target.expected - target.floor:
            high = middle
        else:
            low = middle + 1
    return math.ceil(low / asked.prevalence)


def _deviation(area: float, positives: int, ratio: float) -> float:
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    negatives = positives * ratio
    variance = area * (1 - area) + (positives - 1) * (q1 - area**2) + (negatives - 1) * (q2 - area**2)
    return math.sqrt(variance / (positives * negatives))
