"""Is a score of 0.2 right in one case of five? Reliability, Brier score, expected calibration error.

Bins hold equally many images each (equal mass): bins of equal width leave most scores of a rare finding in one bin.

Three questions, each with the ECE that chance alone would give: `calibration` on the images as they are,
`at_stated_prevalence` where the finding is rarer or more frequent, and `pooled` over all labels at once.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.calibrate import at_prevalence
from model.evaluate.auroc import Scores, known
from model.evaluate.draws import Drawn, Draws, Estimate, estimate, share
from model.table import Table

BINS = 10
INVENTED = 200
"""Invented truths behind `Calibration.by_chance`."""

Truth = NDArray[np.float32]
Floats = NDArray[np.float64]


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


def calibration(truth: Truth, score: Scores, draws: Draws, *, seed: int = 0) -> Calibration:
    """Of one label on the images as they are.

    `truth` (n,) is 1 or 0 everywhere, `score` (n,) from 0 to 1; `draws` are of these n images. Equal scores share a
    bin, so that there may be fewer bins. `seed`: of the invented truths.
    """
    return _measured(truth, score, draws, None, _by_chance(score, score, None, seed))


def at_stated_prevalence(
    truth: Truth, score: Scores, fitted: float, stated: float, draws: Draws, *, seed: int = 0
) -> Calibration:
    """Of one label, as if its share were `stated`: what a place with another prevalence would see.

    `truth` (n,), 1 or 0, both there; `score` (n,), calibrated for the share `fitted`; both shares over 0 and under 1.
    Scores are moved by `calibrate.at_prevalence`, and images are weighted so that positives make up the stated share
    (in each draw anew); bins hold equal weight. That changes how frequent the finding is and nothing else: it holds
    where patients with it, and patients without it, look as they do here (label shift; Saerens et al. 2002).

    `by_chance`: of truths that are invented from the scores as they are, moved from their own mean to `stated`.
    """
    said = at_prevalence(score, fitted, stated)
    ideal = at_prevalence(score, float(score.mean()), stated)
    return _measured(truth, said, draws, stated, _by_chance(score, ideal, stated, seed))


def pooled(table: Table, scores: Scores, draws: Draws, *, seed: int = 0) -> Calibration:
    """Of all labels at once: every (image, label) whose truth and score are known is one case, in one set of bins.

    `scores` (n, labels of the table), NaN where there is none; `draws` are of the table's n images: a patient is drawn
    with all images and all labels. `brier_of_prevalence` says each label its own prevalence. `by_chance` takes the
    cases as independent, which findings of one image are not: it may be low. One case must be known.
    """
    truths, said, people, rates = [], [], [], []
    for column, name in enumerate(table.names):
        rows = ~np.isnan(scores[:, column])
        truth, score, of = known(table.only(rows), scores[rows], draws.only(rows), name)
        truths.append(truth)
        said.append(score)
        people.append(of.person)
        rates.append(len(truth) * truth.mean() * (1 - truth.mean()) if len(truth) else 0.0)
    truth, score = np.concatenate(truths), np.concatenate(said)
    found = calibration(truth, score, Draws(draws.weights, np.concatenate(people)), seed=seed)
    return replace(found, brier_of_prevalence=float(sum(rates) / len(truth)))


def drawn_ece(truth: Truth, score: Scores, draws: Draws) -> Drawn:
    """`calibration`'s ECE in each draw."""
    return _drawn(truth, score, draws, None)[1].ece


def drawn_brier(truth: Truth, score: Scores, draws: Draws) -> Drawn:
    """`calibration`'s Brier score in each draw."""
    return share(*draws.sums(np.column_stack([(score - truth) ** 2, np.ones(len(truth))])).T)


def _drawn(
    truth: Truth, score: Scores, draws: Draws, stated: float | None
) -> tuple[NDArray[np.int64], "_Weighted"]:
    """Each image's bin, and the bins in each draw."""
    up, down = truth == 1, truth == 0
    place = _places(_levels(score), up, stated)
    sums = [draws.sums_by(place, each) for each in (up, down, up * score, down * score)]
    return place, _weighted(sums[0], sums[1], sums[2], sums[3], stated)


def _measured(truth: Truth, score: Scores, draws: Draws, stated: float | None, chance: float) -> Calibration:
    """`stated`: the share that positives are weighted to; None weighs all images alike."""
    place, bins = _drawn(truth, score, draws, stated)
    up, down, squares = truth == 1, truth == 0, (score - truth) ** 2
    ups, downs, *errors = draws.sums(np.column_stack([up, down, up * squares, down * squares])).T[:, :, None]
    brier = _weighted(ups, downs, errors[0], errors[1], stated).said[:, 0]
    rate = float(up.mean()) if stated is None else stated
    return Calibration(
        bins=tuple(
            Bin(
                int((place == b).sum()),
                float(bins.said[0, b] / bins.mass[0, b]),
                estimate(share(bins.positive[:, b], bins.mass[:, b])),
            )
            for b in range(place.max() + 1)
        ),
        brier=estimate(brier),
        brier_of_prevalence=rate * (1 - rate),
        ece=estimate(bins.ece),
        by_chance=chance,
    )


def _by_chance(score: Scores, said: Scores, stated: float | None, seed: int) -> float:
    """The mean ECE of truths by which `score` is perfectly calibrated; `said`: what it would say at `stated`."""
    random, levels, found = np.random.default_rng(seed), _levels(said), []
    for _ in range(INVENTED):
        up = random.random(len(score)) < score
        place = _places(levels, up, stated)
        ups, downs, said_up, said_down = (
            np.bincount(place, each).reshape(1, -1).astype(np.float64)
            for each in (up, ~up, up * said, ~up * said)
        )
        found.append(_weighted(ups, downs, said_up, said_down, stated).ece[0])
    return float(np.nanmean(found)) if not np.isnan(found).all() else np.nan


def _levels(score: Scores) -> NDArray[np.int64]:
    """Each image's score as its rank, from 0 on; equal ones are one."""
    return np.unique(score, return_inverse=True)[1].astype(np.int64)


def _places(levels: NDArray[np.int64], up: NDArray[np.bool_], stated: float | None) -> NDArray[np.int64]:
    """Each image's bin, from 0 on, none of them empty: by the weight of all images that score less."""
    share_up = up.mean()
    weights = np.ones(len(up))
    if stated is not None and 0 < share_up < 1:
        weights = np.where(up, stated / share_up, (1 - stated) / (1 - share_up))
    until = np.cumsum(np.bincount(levels, weights))
    before = np.concatenate([[0.0], until[:-1]]) / until[-1]
    bins = np.searchsorted(np.arange(1, BINS) / BINS, before, side="right")
    return np.cumsum(np.diff(bins, prepend=bins[0]) > 0)[levels]


@dataclass(frozen=True)
class _Weighted:
    """(draws, bins) each; the weights of a draw add up to 1."""

    mass: Floats
    positive: Floats
    said: Floats

    @property
    def ece(self) -> Floats:
        """(draws,)"""
        return np.abs(self.said - self.positive).sum(axis=1)


def _weighted(
    ups: Floats, downs: Floats, said_up: Floats, said_down: Floats, stated: float | None
) -> _Weighted:
    """Numbers of positives and of negatives in each bin, and sums of what is said of them, all (draws, bins).

    NaN where a draw has no positives, or no negatives, to be weighted.
    """
    positives, negatives = ups.sum(axis=1, keepdims=True), downs.sum(axis=1, keepdims=True)
    if stated is None:
        of_up = of_down = share(np.ones_like(positives), positives + negatives)
    else:
        of_up = share(np.full_like(positives, stated), positives)
        of_down = share(np.full_like(negatives, 1 - stated), negatives)
    return _Weighted(of_up * ups + of_down * downs, of_up * ups, of_up * said_up + of_down * said_down)
