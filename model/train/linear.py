"""The exact head where images are few: chosen and judged by folds of patients instead of one validation split.

The convolutions stay as ImageNet left them, so that each picture goes through them once and all that follows works
on a table of features: minutes on two cores. What is chosen (the strength, the calibration, the thresholds) is chosen
by scores that a picture got from heads without its patient, among training patients only.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from model import network, pixels
from model.calibrate import fit_temperature, shares
from model.card import Card, Temperature
from model.evaluate.auroc import Scores, auroc
from model.evaluate.thresholds import choose
from model.network import Weights
from model.progress import steps
from model.runtime.tensorflow import graph_of
from model.table import FOLDS, OPACITY, Table
from model.train.exact import Floats, Head, Rows, lesson, solve
from model.train.inputs import fill
from model.train.recipe import Recipe

BATCH = 8
FAIREST = "c2"
"""The collection whose choice of images gives the findings away the least."""
MEANT = 12
"""Positives from which on a finding counts in a mean."""


@dataclass(frozen=True)
class Trained:
    """What a training leaves: the head, and what was chosen on the way, by which scores."""

    head: Head
    strength: float
    curves: dict[str, Temperature]
    """Label -> from the head's output to a share of the training rows."""
    thresholds: dict[str, float]
    """Of calibrated scores."""
    inner: Scores
    """The training rows' raw scores from heads without their patients, in the table's order; NaN for test rows."""
    others: tuple[Head, ...]
    """Fitted like the head, each without one fold of the patients: what `model.doubt` asks."""

    def scores(self, features: Floats) -> Scores:
        """Calibrated, (n, features) -> (n, labels)."""
        return shares(self.curves, list(self.curves), self.head.scores(features))


def prepare(image: Path, card: Card) -> Floats:
    """A PNG's or JPEG's way into the network: the same two functions that a DICOM image goes through."""
    return pixels.prepare(pixels.read(pixels.wrap(image)), card)


def extract(table: Table, card: Card, base: Weights, cache: Path) -> Floats:
    """What the head reads of every image of the table, (n, features); see `read`."""
    return read("frozen layers", lambda: (prepare(image, card) for image in table.images), card, base, cache)


def read(
    what: str, pictures: Callable[[], Iterator[Floats]], card: Card, base: Weights, cache: Path
) -> Floats:
    """What the head reads of every picture, (n, features); at least one picture.

    `pictures`: prepared ones, (size, size, 3) each; called twice where nothing is kept. `what`: for the person who
    waits. Kept in the folder `cache` under a hash of the prepared pictures, the weights and the pools, so that
    a second run takes seconds and no change of the preprocessing can be missed.
    """
    key = hashlib.sha256(repr((card.pools, card.head)).encode())
    for name in sorted(base):
        key.update(base[name].tobytes())
    count = 0
    for picture in pictures():
        key.update(picture.tobytes())
        count += 1
    kept = cache / f"{key.hexdigest()[:32]}.npy"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        np.save(kept, _through(what, pictures(), count, card, base), allow_pickle=False)
    return np.asarray(np.load(kept, allow_pickle=False), np.float32)


def _through(what: str, pictures: Iterator[Floats], count: int, card: Card, base: Weights) -> Floats:
    below = network.averages(card.size, card.pools, card.head)
    fill(below, base)
    run = graph_of(below, card)
    found = []
    for start in steps(what, range(0, count, BATCH)):
        batch = np.stack([next(pictures) for _ in range(min(BATCH, count - start))])
        found.append(run(batch).numpy())
    return np.concatenate(found)


def heads(features: Floats, table: Table, rows: Rows, recipe: Recipe) -> list[Head]:
    """One for each of the recipe's strengths, fitted to the rows of `rows`."""
    widths = [network.width_of(pool) for pool in recipe.network.pools]
    given = lesson(table, rows, recipe.exact.borrowed)
    return solve(features[rows], widths, given, recipe.exact.strengths)


def strongest(features: Floats, table: Table, rows: Rows, recipe: Recipe) -> tuple[float, Scores]:
    """The strength with the best mean AUROC of all labels over `rows`, out of fold; and its scores."""
    tried = [np.full(table.labels.shape, np.nan) for _ in recipe.exact.strengths]
    for fold in range(FOLDS):
        here = rows & (table.folds == fold)
        if here.any():
            for scores, head in zip(tried, heads(features, table, rows & ~here, recipe), strict=True):
                scores[here] = head.scores(features[here])
    inside = table.only(rows)

    def mean(scores: Scores) -> float:
        each = [auroc(inside, scores[rows], [name], resamples=0) for name in table.names]
        return float(np.mean([figure.auroc for figure in each if figure]))

    best = int(np.argmax([mean(scores) for scores in tried]))
    return recipe.exact.strengths[best], tried[best]


def curves(table: Table, scores: Scores) -> dict[str, Temperature]:
    """Per label what the rows where label and score are known say of raw scores."""
    found = {}
    for column, name in enumerate(table.names):
        seen = ~np.isnan(table[name]) & ~np.isnan(scores[:, column])
        fitted = fit_temperature(table[name][seen], scores[seen, column])
        # as a card holds them, so that thresholds are chosen on the very scores that will be seen
        found[name] = Temperature(round(fitted.temperature, 4), round(fitted.shift, 4))
    return found


def thresholds(table: Table, scores: Scores, rule: str) -> dict[str, float]:
    """Per label the threshold by `rule` on the rows where label and score are known."""
    found = {}
    for column, name in enumerate(table.names):
        seen = ~np.isnan(table[name]) & ~np.isnan(scores[:, column])
        found[name] = choose(table[name][seen], scores[seen, column], rule)
    return found


def train(features: Floats, table: Table, recipe: Recipe, test_fold: int | None = None) -> Trained:
    """Chooses, then fits on all patients, or on all outside the test fold, whose rows are never touched."""
    rows = np.ones(len(table), np.bool_) if test_fold is None else table.folds != test_fold
    strength, inner = strongest(features, table, rows, recipe)
    alone = replace(recipe, exact=replace(recipe.exact, strengths=(strength,)))
    head = heads(features, table, rows, alone)[0]
    without = [rows & (table.folds != fold) for fold in range(FOLDS) if (rows & (table.folds == fold)).any()]
    others = tuple(heads(features, table, part, alone)[0] for part in without)
    by = curves(table, inner)
    chosen = thresholds(table, shares(by, table.names, inner), recipe.thresholds.rule)
    return Trained(head, strength, by, chosen, inner, others)


@dataclass(frozen=True)
class Judged:
    """Every row judged by a model without it, (n, labels) each: what is judged is the recipe, not `train`'s model."""

    raw: Scores
    """As the heads say them, which are anchored to one another: by these the five folds' scores stand side by side.
    Curves of five fits shift them against each other, by what each saw of a rare finding."""
    scores: Scores
    """The same, calibrated."""
    calls: Scores
    """1 where the score reaches the threshold that the row's model chose for itself, else 0."""
    unsettled: Scores
    """1 where the row's model and its `others` don't all call alike, else 0."""


def cross_validate(features: Floats, table: Table, recipe: Recipe) -> Judged:
    """The whole recipe, its choices included, once without each fold."""
    raw, scores, calls, unsettled = (np.full(table.labels.shape, np.nan) for _ in range(4))
    for fold in range(FOLDS):
        here = table.folds == fold
        trained = train(features, table, recipe, fold)
        raw[here] = trained.head.scores(features[here])
        scores[here] = shares(trained.curves, table.names, raw[here])
        least = np.array([trained.thresholds[name] for name in table.names])
        calls[here] = scores[here] >= least
        several = (trained.head, *trained.others)
        said = [shares(trained.curves, table.names, head.scores(features[here])) for head in several]
        each = np.stack(said) >= least
        unsettled[here] = each.any(axis=0) & ~each.all(axis=0)
    return Judged(raw, scores, calls, unsettled)


def learning_curve(
    features: Floats, table: Table, recipe: Recipe, parts: tuple[float, ...], draws: int
) -> list[tuple[float, ...]]:
    """(share, images, `Lung Opacity`, mean of the findings inside the fairest collection) of heads on fewer patients.

    Five-fold; each fold's head is fitted to a share of its training patients, drawn `draws` times, at the recipe's
    middle strength. Images are those fitted to, AUROCs means over the draws.
    """
    middle = sorted(recipe.exact.strengths)[len(recipe.exact.strengths) // 2]
    alone = replace(recipe, exact=replace(recipe.exact, strengths=(middle,)))
    people, person = np.unique(table.patients, return_inverse=True)
    found = []
    for share in parts:
        measured = []
        for number in range(1 if share == 1 else draws):
            drawn = np.random.default_rng([number, int(share * 1000)]).random(len(people))[person] < share
            scores, fitted = np.full(table.labels.shape, np.nan), 0
            for fold in range(FOLDS):
                here = table.folds == fold
                rows = drawn & ~here
                fitted += int(rows.sum())
                scores[here] = heads(features, table, rows, alone)[0].scores(features[here])
            fair = table.only(table.collections == FAIREST)
            named = [n for n in table.names if n != OPACITY and (fair[n] == 1).sum() >= MEANT]
            opacity = auroc(table, scores, [OPACITY], resamples=0)
            mean = auroc(fair, scores[table.collections == FAIREST], named, resamples=0)
            if opacity and mean:
                measured.append((fitted / FOLDS, opacity.auroc, mean.auroc))
        found.append((share, *(float(value) for value in np.mean(measured, axis=0))))
    return found
