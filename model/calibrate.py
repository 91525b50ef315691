"""From a network's output to a share: of the images with this score, about so many have the finding.

Two kinds of curve, both fitted on images that did not train the head, both in a card as plain numbers:

- `Temperature`: score = sigmoid(logit(raw) / temperature + shift) (Platt 1999; Guo et al. 2017, with a shift: findings
  are rare). Two numbers, and no two scores become equal.
- `Knots`: what isotonic regression found (Zadrozny and Elkan 2002), lines between its corners; for many images (under
  some 1,000 cases the other is nearer: Niculescu-Mizil and Caruana 2005).

A share holds for the prevalence that it was fitted at. `at_prevalence` brings it to another one (Saerens et al. 2002):
the odds are multiplied as those of the finding are. Neither curve nor prevalence changes the order of scores, so that
a threshold can go with them (`carried`) and every decision stays.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from model.card import Curve, Knots, Temperature

Doubles = NDArray[np.float64]

CLOSEST = 1e-7
"""To 0 and 1: a sigmoid in float32 comes to 1 at a logit of 17, whose own would have no bound."""
LARGEST_SHIFT = 50.0
"""What a card takes."""
TILT = 1e-4
"""How much of the raw score is in an isotonic one: its steps are level, and level steps make different scores equal."""
FINE = 0.01
"""Between two corners that differ by more, there are more of them where a curve is bent."""


def calibrated(curve: Curve, raw: Doubles) -> Doubles:
    """Shares of raw scores; both from 0 to 1, arrays of any shape."""
    if isinstance(curve, Knots):
        return np.interp(raw, curve.raw, curve.score)
    return sigmoid(logit(raw) / curve.temperature + curve.shift)


def shares(curves: Mapping[str, Curve], labels: Sequence[str], raw: Doubles) -> Doubles:
    """Each label's column of `raw` (n, labels) by its curve; as it is where it has none. NaN stays NaN."""
    columns = [
        calibrated(curves[label], raw[:, n]) if label in curves else raw[:, n]
        for n, label in enumerate(labels)
    ]
    return np.stack(columns, axis=1)


def logit(share: Doubles) -> Doubles:
    inside = np.clip(np.asarray(share, np.float64), CLOSEST, 1 - CLOSEST)
    return np.log(inside) - np.log1p(-inside)


def sigmoid(x: Doubles) -> Doubles:
    return 1 / (1 + np.exp(-x))


def at_prevalence(share: Doubles, fitted: float, there: float) -> Doubles:
    """Shares that hold where the finding's is `fitted`, for a place where it is `there`; both over 0 and under 1."""
    odds = logit(np.array([fitted, there]))
    return sigmoid(logit(share) + (odds[1] - odds[0]))


def fit_temperature(truth: NDArray[np.floating], raw: Doubles) -> Temperature:
    """The curve under which `truth` (n,), 1 or 0, is likeliest; `raw` (n,), 0 to 1, of a head without these images.

    Where raw scores order nothing, or backwards, the slope would be 0 or below it: it is held to 1/20, so that it
    says little more than the share of positives and still changes no order. Both truths must be there.
    """
    from scipy.optimize import minimize

    x, y = logit(raw), np.asarray(truth, np.float64)

    def loss(at: Doubles) -> tuple[float, Doubles]:
        z = at[0] * x + at[1]
        pull = sigmoid(z) - y
        return float((np.logaddexp(0, z) - y * z).mean()), np.array([(pull * x).mean(), pull.mean()])

    ends = [(1 / 20, 20), (-LARGEST_SHIFT, LARGEST_SHIFT)]
    found = minimize(loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=ends).x
    return Temperature(1 / float(found[0]), float(found[1]))


def fit_isotonic(truth: NDArray[np.floating], raw: Doubles) -> Knots:
    """The never falling curve nearest to `truth` (n,) in squares, as its corners. Needs two different raw scores.

    Two things are added. No share is surer than half an image of the n: a step of negatives alone would say 0. And
    TILT keeps the order of all scores from 0 to 1.
    """
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(out_of_bounds="clip").fit(raw, np.asarray(truth, np.float64))
    x, half = fitted.X_thresholds_, 0.5 / len(raw)
    y = np.clip(fitted.y_thresholds_, half, 1 - half)
    ends = np.unique(np.concatenate([[0.0], x, [1.0]]))
    return _knots(ends, (1 - TILT) * np.interp(ends, x, y) + TILT * ends)


def fit_shift(share: float, raw: Doubles, temperature: float = 1.0) -> Temperature:
    """The curve of this temperature whose mean over `raw` (n,) is `share`, over 0 and under 1: for a finding that too
    few images have for more than their number to be learnt."""
    from scipy.optimize import brentq

    x = logit(raw) / temperature

    def too_much(shift: float) -> float:
        return float(sigmoid(x + shift).mean()) - share

    ends = -LARGEST_SHIFT, LARGEST_SHIFT
    if too_much(ends[0]) >= 0 or too_much(ends[1]) <= 0:
        return Temperature(temperature, ends[0] if too_much(ends[0]) >= 0 else ends[1])
    return Temperature(temperature, float(brentq(too_much, *ends, xtol=1e-9)))


FITS: dict[str, Callable[[NDArray[np.floating], Doubles], Curve]] = {
    "temperature": fit_temperature,
    "isotonic": fit_isotonic,
}


def as_knots(curve: Temperature) -> Knots:
    """Its corners, near enough to 0.001."""
    x = np.concatenate([[0.0], sigmoid(np.arange(-16, 16.01, 0.05)), [1.0]])
    return _knots(x, calibrated(curve, x))


def moved(curve: Curve, fitted: float, there: float) -> Curve:
    """The curve for a place where the finding's share is `there`; see `at_prevalence`."""
    odds = logit(np.array([fitted, there]))
    if isinstance(curve, Temperature):
        return Temperature(curve.temperature, curve.shift + float(odds[1] - odds[0]))
    x = np.concatenate(
        [
            np.linspace(*raw, 1 + math.ceil((score[1] - score[0]) / FINE), endpoint=False)
            for raw, score in zip(pairwise(curve.raw), pairwise(curve.score), strict=True)
        ]
        + [curve.raw[-1:]]
    )
    return _knots(x, at_prevalence(calibrated(curve, x), fitted, there))


def carried(threshold: float, old: Curve | None, new: Curve | None) -> tuple[float, bool]:
    """The threshold from which on the `new` curve's scores call what the `old` one's called from `threshold` on.

    None stands for the raw score. Networks say float32 numbers: the two neighbours are sought between which the old
    curve passes the threshold, and a number with few digits between their new scores is taken. False beside it where
    the new curve says the same of both, as curves of `fit_…` do within 1e-7 of 0 and 1 only: then both are called.
    """

    def said(curve: Curve | None, bits: int) -> float:
        raw = np.array([bits], np.uint32).view(np.float32).astype(np.float64)
        return float(raw[0] if curve is None else calibrated(curve, raw)[0])

    if said(old, 0) >= threshold:
        return 0.0, True
    below, above = 0, int(np.float32(1).view(np.uint32))
    if said(old, above) < threshold:  # nothing is called
        return 1.0, said(new, above) < 1
    while above - below > 1:
        middle = (above + below) // 2
        below, above = (below, middle) if said(old, middle) >= threshold else (middle, above)
    low, high = said(new, below), said(new, above)
    return _between(low, high), low < high


def _between(low: float, high: float) -> float:
    """Away from both, so that no rounding of either crosses it; `high` where nothing lies between."""
    middle, margin = (low + high) / 2, (high - low) / 4
    for digits in range(4, 30):
        number = round(middle, digits)
        if low < number < high and low + margin <= number <= high - margin:
            return number
    return middle if low < middle < high else high


def _knots(raw: Doubles, score: Doubles) -> Knots:
    return Knots(tuple(map(float, raw)), tuple(map(float, score)))
