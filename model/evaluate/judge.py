"""Truth and scores -> every figure of an evaluation, all on the same draws of patients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.evaluate.auroc import Difference, Scores, areas, counts, difference, enough, known, mean, ranked
from model.evaluate.calibration import Calibration, at_stated_prevalence, calibration, pooled
from model.evaluate.confusion import Confusion, confusion
from model.evaluate.curves import Curve, Decision, decision, precision_recall, roc
from model.evaluate.draws import Drawn, Draws, Estimate, draw, estimate
from model.evaluate.subgroups import Rows, subgroups
from model.table import Table

ALL = "all"


@dataclass(frozen=True)
class Elsewhere:
    """Calibration where the finding has another prevalence; see `calibration.at_stated_prevalence`."""

    fitted: float
    """For which the scores hold: the card's, or that of the images judged where the card says none."""
    prevalence: float
    calibration: Calibration


@dataclass(frozen=True)
class Label:
    """One label on the images where it is known. Without enough positives and negatives there are counts only."""

    images: int
    positive: int
    auroc: Estimate | None = None
    average_precision: Estimate | None = None
    at_threshold: Confusion | None = None
    calibration: Calibration | None = None
    elsewhere: tuple["Elsewhere", ...] = ()
    roc: Curve | None = None
    precision_recall: Curve | None = None
    decision: Decision | None = None


@dataclass(frozen=True)
class Part:
    """AUROC within some of the images."""

    images: int
    patients: int
    labels: dict[str, tuple[Estimate, int, int]]
    """Label -> AUROC, images, positives; those with enough of both."""
    mean: Estimate | None
    """Over these labels."""


@dataclass(frozen=True)
class Floor:
    """What the rows give without reading the picture, within some of the images; and how far the model is above."""

    labels: dict[str, tuple[Estimate, Difference]]
    mean: tuple[Estimate, Difference] | None


@dataclass(frozen=True)
class Folded:
    """What several models say of the images, (n, labels) each, that their calibrated scores would say less well side by
    side: a curve and a threshold hold among the scores of the model that they were fitted for."""

    order: Scores
    """What ranks the images."""
    calls: Scores
    """1 where the image's own model reaches its own threshold, else 0."""


@dataclass(frozen=True)
class Judgement:
    labels: dict[str, Label]
    parts: dict[str, dict[str, Part]]
    """`all` -> `all`; view, sex, age, collection -> value -> that part of the images."""
    floors: dict[str, dict[str, Floor]]
    """Floor -> `all`, and each collection -> its figures there."""
    pooled: Calibration | None
    """Of all labels in one set of bins; None where nothing is known."""


def judge(
    table: Table,
    scores: Scores,
    thresholds: Mapping[str, float],
    floors: Mapping[str, Scores],
    *,
    prevalences: Sequence[float],
    fitted: Mapping[str, float] | None = None,
    folded: Folded | None = None,
    resamples: int,
    seed: int,
) -> Judgement:
    """`scores` and each floor's: (n, labels of the table), none NaN. `folded`: where they are those of several
    models, each of which judged some of the images.

    `prevalences`: stated ones, at which predictive values and calibration are asked for too. `fitted`: label -> the
    prevalence for which its scores hold, that of these images where it says none.
    """
    draws = draw(table.patients, resamples, seed)
    everyone = {ALL: {ALL: np.ones(len(table), np.bool_)}}
    groups = everyone | subgroups(table)
    order = folded.order if folded else scores
    overall = areas(table, order, draws)

    def within(rows: Rows) -> dict[str, Drawn]:
        return overall if rows.all() else areas(table.only(rows), order[rows], draws.only(rows))

    drawn = {kind: {value: within(rows) for value, rows in parts.items()} for kind, parts in groups.items()}
    inside = {value: rows for value, rows in groups["collection"].items() if not rows.all()}
    fair = everyone[ALL] | inside
    of_model = drawn[ALL] | drawn["collection"]
    return Judgement(
        labels={
            name: _label(
                table,
                scores,
                folded,
                thresholds[name],
                draws,
                name,
                prevalences,
                (fitted or {}).get(name),
                seed,
            )
            for name in table.names
        },
        parts={
            kind: {value: _part(table.only(rows), drawn[kind][value]) for value, rows in parts.items()}
            for kind, parts in groups.items()
        },
        floors={
            floor: {where: _floor(table, of_model[where], by, draws, rows) for where, rows in fair.items()}
            for floor, by in floors.items()
        },
        pooled=None if np.isnan(table.labels).all() else pooled(table, scores, draws, seed=seed),
    )


def _label(
    table: Table,
    scores: Scores,
    folded: Folded | None,
    threshold: float,
    draws: Draws,
    name: str,
    prevalences: Sequence[float],
    fitted: float | None,
    seed: int,
) -> Label:
    truth, score, of = known(table, scores, draws, name)
    images, positive = len(truth), int((truth == 1).sum())
    if not enough(truth):
        return Label(images, positive)
    place = known(table, folded.order, draws, name)[1] if folded else score
    at_threshold = confusion(truth, score, threshold, of, prevalences)
    if folded:
        called = known(table, folded.calls, draws, name)[1]
        at_threshold = replace(confusion(truth, called, 1.0, of, prevalences), threshold=threshold)
    area, precision = ranked(truth, place, of)
    here = fitted or positive / images
    return Label(
        images,
        positive,
        auroc=estimate(area),
        average_precision=estimate(precision),
        at_threshold=at_threshold,
        calibration=calibration(truth, score, of, seed=seed),
        elsewhere=tuple(
            Elsewhere(here, there, at_stated_prevalence(truth, score, here, there, of, seed=seed))
            for there in prevalences
            if 0 < there < 1
        ),
        roc=roc(truth, place),
        precision_recall=precision_recall(truth, place),
        decision=decision(truth, score, of),
    )


def _part(table: Table, drawn: dict[str, Drawn]) -> Part:
    return Part(
        images=len(table),
        patients=len(np.unique(table.patients)),
        labels={name: (estimate(each), *counts(table, [name])) for name, each in drawn.items()},
        mean=estimate(mean(drawn)) if drawn else None,
    )


def _floor(table: Table, of_model: dict[str, Drawn], by: Scores, draws: Draws, rows: Rows) -> Floor:
    inside = table.only(rows)
    of_floor = areas(inside, by[rows], draws.only(rows))
    labels = {
        name: (estimate(each), difference(inside, {name: of_model[name]}, {name: each}))
        for name, each in of_floor.items()
    }
    together = (estimate(mean(of_floor)), difference(inside, of_model, of_floor)) if of_floor else None
    return Floor(labels, together)
