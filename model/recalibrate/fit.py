"""Raw scores and truth of some images -> each label's curve, and in words on what it stands.

A label that few of the images have is not fitted by itself: two numbers learnt from three positives say what these
three look like. Only the number of its positives is taken over, and the temperature is the middle one of the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.calibrate import Doubles, as_knots, fit_isotonic, fit_shift, fit_temperature
from model.card import Curve, Knots, Temperature
from model.table import FOLDS

Floats = NDArray[np.floating[Any]]
LEAST = {"temperature": 10, "isotonic": 50}
"""Positives, and negatives, that a label's own curve takes: five for each of a temperature's two numbers; isotonic
regression learns a number a step."""
WORDS = {
    "temperature": "a temperature and a shift of the logit (likelihood with Platt's targets)",
    "isotonic": "isotonic regression, straight between its corners",
}


@dataclass(frozen=True)
class Fitted:
    method: str
    curves: dict[str, Curve]
    prevalence: dict[str, float]
    """Label -> for which its scores hold."""
    few: dict[str, tuple[int, int]]
    """Labels without a curve of their own -> positives, and images where they are known."""
    kept: tuple[str, ...] = ()
    """Labels that nobody looked for, with an older curve."""
    raw: tuple[str, ...] = ()
    """Labels that nobody looked for, with none: their scores stay the network's."""

    def how(self, images: str) -> str:
        """For the card; `images`: on which, in words."""
        said = f"Per finding {WORDS[self.method]}, on {images}, as far as the finding is known there."
        few = [f"{label} {positive} of {known}" for label, (positive, known) in self.few.items()]
        if few:
            said += (
                f" Fewer than {LEAST[self.method]} images with or without the finding ({', '.join(few)}): only the "
                "share of positives was taken over, by a shift, with the middle temperature of the other findings."
            )
        if self.kept:
            said += f" Nobody looked for {', '.join(self.kept)}: curves and prevalences are older ones."
        if self.raw:
            said += (
                f" Nobody looked for {', '.join(self.raw)}: the scores are the network's own, and their prevalence is "
                "the mean of these, not a share that was seen."
            )
        return f"{said} Scores hold for the prevalence that the card gives."


def fit(
    labels: Sequence[str],
    truth: Floats,
    raw: Doubles,
    method: str = "temperature",
    older: Mapping[str, tuple[Curve, float]] | None = None,
) -> Fitted:
    """`truth` (n, labels) 1, 0, or NaN; `raw` (n, labels) from 0 to 1, or NaN; one known raw score a label at least.

    `older`: curve and prevalence of labels that have some, for those that nobody looked for here.
    """
    columns = {label: _known(truth[:, n], raw[:, n]) for n, label in enumerate(labels)}
    positives = {label: int((there == 1).sum()) for label, (there, _) in columns.items()}
    unseen = [label for label, (there, _) in columns.items() if not len(there)]
    own = [label for label in labels if _enough(*columns[label], LEAST[method])]
    few = [label for label in labels if label not in own and label not in unseen]

    curves: dict[str, Curve] = {label: _own(*columns[label], method) for label in own}
    usual = [curve.temperature for curve in curves.values() if isinstance(curve, Temperature)]
    share = {label: positives[label] / len(columns[label][0]) for label in own}
    for label in few:
        # with a half of each added: no few images show that a finding never or always occurs
        share[label] = (positives[label] + 0.5) / (len(columns[label][0]) + 1)
        curves[label] = fit_shift(share[label], columns[label][1], float(np.median(usual)) if usual else 1.0)
    kept = {label: older[label] for label in unseen if older and label in older}
    for label in unseen:
        mean = float(np.nanmean(raw[:, list(labels).index(label)]))
        curves[label], share[label] = kept.get(label, (Temperature(1.0, 0.0), mean))
    return Fitted(
        method,
        {label: _as_held(curves[label], method) for label in labels},
        {label: _rounded(share[label]) for label in labels},
        {label: (positives[label], len(columns[label][0])) for label in few},
        tuple(kept),
        tuple(label for label in unseen if label not in kept),
    )


def out_of_fold(
    labels: Sequence[str], truth: Floats, raw: Doubles, method: str, folds: NDArray[np.int64]
) -> Doubles:
    """Scores (n, labels), each by curves that were fitted without its fold; NaN where nothing could be fitted."""
    from model.calibrate import shares

    found = np.full(raw.shape, np.nan)
    for fold in range(FOLDS):
        here = folds == fold
        if here.any() and not np.isnan(raw[~here]).all(axis=0).any():
            curves = fit(labels, truth[~here], raw[~here], method).curves
            found[here] = shares(curves, labels, raw[here])
    return found


def keys(curve: Curve) -> dict[str, Any]:
    """What a card's finding holds of its curve."""
    if isinstance(curve, Knots):
        return {"knots": [list(pair) for pair in zip(curve.raw, curve.score, strict=True)]}
    return {"temperature": curve.temperature, "shift": curve.shift}


def with_curves(finding: Mapping[str, Any], curve: Curve, prevalence: float) -> dict[str, Any]:
    """A card's finding with another curve, behind its threshold."""
    found: dict[str, Any] = {}
    for key, value in finding.items():
        if key not in ("temperature", "shift", "knots", "prevalence"):
            found[key] = value
        if key == "threshold":
            found |= keys(curve) | {"prevalence": prevalence}
    return found


def _own(truth: Floats, raw: Doubles, method: str) -> Curve:
    if method == "isotonic":
        return fit_isotonic(truth, raw)
    # Platt 1999, 2.2: without them scores that part the images of the split would become 0 and 1.
    up, down = (truth == 1).sum(), (truth == 0).sum()
    return fit_temperature(np.where(truth == 1, (up + 1) / (up + 2), 1 / (down + 2)), raw)


def _enough(truth: Floats, raw: Doubles, least: int) -> bool:
    return bool(min((truth == 1).sum(), (truth == 0).sum()) >= least and len(np.unique(raw)) > 1)


def _as_held(curve: Curve, method: str) -> Curve:
    """As a card holds it, so that thresholds suit the very scores that will be seen."""
    if isinstance(curve, Knots):
        return curve
    rounded = Temperature(round(curve.temperature, 4), round(curve.shift, 4))
    return as_knots(rounded) if method == "isotonic" else rounded


def _rounded(share: float) -> float:
    return min(max(round(share, 5), 1e-5), 1 - 1e-5)


def _known(truth: Floats, raw: Doubles) -> tuple[Floats, Doubles]:
    seen = ~np.isnan(truth) & ~np.isnan(raw)
    return truth[seen], raw[seen]
