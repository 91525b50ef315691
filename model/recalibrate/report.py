"""What a calibration did, as a page: before, and after by curves that other patients fitted."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.card import Card, Knots
from model.evaluate.auroc import Scores, enough, known
from model.evaluate.calibration import Calibration, calibration, pooled
from model.evaluate.draws import Draws
from model.page import Page
from model.recalibrate.fit import LEAST, Fitted
from model.table import FOLDS, Table


@dataclass(frozen=True)
class Asked:
    old: Card
    new: Card
    """Fitted, before any stated prevalence."""
    fitted: Fitted
    file: Path
    split: str
    table: Table
    """The images that it was fitted on."""
    unreadable: dict[str, str]
    trained: str
    """Whether they trained the model, in words."""
    resamples: int
    seed: int


@dataclass(frozen=True)
class Judged:
    """Before and after; None where too little is known."""

    pooled: tuple[Calibration, Calibration | None]
    labels: dict[str, tuple[Calibration, Calibration | None]]


def judge(asked: Asked, before: Scores, after: Scores, draws: Draws) -> Judged:
    """`before`, `after`: (n, labels of the table); `after` by curves of the other folds, NaN where there were none."""
    table, there = asked.table, not np.isnan(after).any()
    labels = {}
    for name in table.names:
        truth, score, of = known(table, before, draws, name)
        if enough(truth):
            later = known(table, after, draws, name)[1]
            labels[name] = (
                calibration(truth, score, of, seed=asked.seed),
                calibration(truth, later, of, seed=asked.seed) if there else None,
            )
    return Judged(
        (
            pooled(table, before, draws, seed=asked.seed),
            pooled(table, after, draws, seed=asked.seed) if there else None,
        ),
        labels,
    )


def lines(asked: Asked, judged: Judged, page: Path) -> list[str]:
    """What the command prints."""
    people = len(np.unique(asked.table.patients))
    read = f"; {len(asked.unreadable)} more could not be read" if asked.unreadable else ""
    found = [f"{len(asked.table)} images of {people} patients, split {asked.split}{read}", asked.trained]
    few = [f"{label} {positive} of {n}" for label, (positive, n) in asked.fitted.few.items()]
    if few:
        found.append(
            f"fewer than {LEAST[asked.fitted.method]} images with or without, only the share taken over: "
            + ", ".join(few)
        )
    if asked.fitted.kept:
        found.append(f"nobody looked, older curve kept: {', '.join(asked.fitted.kept)}")
    if asked.fitted.raw:
        found.append(f"nobody looked, scores stay the network's: {', '.join(asked.fitted.raw)}")
    before, after = judged.pooled
    found.append(f"ECE of all labels pooled before: {before.ece}, {before.by_chance:.3f} by chance")
    if after:
        found.append(f"after, by curves of other patients: {after.ece}, {after.by_chance:.3f} by chance")
    if "probability" in asked.old.limits:
        found.append("the card's `limits` speak of probability; read whether they still hold")
    return [*found, f"report: {page}"]


def figures(asked: Asked, judged: Judged) -> dict[str, Any]:
    """What report.json holds."""

    def both(pair: tuple[Calibration, Calibration | None]) -> dict[str, Any]:
        return {"before": asdict(pair[0]), "after_out_of_fold": pair[1] and asdict(pair[1])}

    return {
        "model": {"name": asked.old.name, "version": asked.old.version, "sha256": asked.old.sha256},
        "table": asked.file.name,
        "split": asked.split,
        "images": len(asked.table),
        "patients": len(np.unique(asked.table.patients)),
        "resamples": asked.resamples,
        "seed": asked.seed,
        "unreadable": asked.unreadable,
        "trained": asked.trained,
        "method": asked.fitted.method,
        "how": asked.new.calibrated_how,
        "curves": {label: asdict(curve) for label, curve in asked.fitted.curves.items()},
        "prevalence": asked.fitted.prevalence,
        "pooled": both(judged.pooled),
        "labels": {name: both(pair) for name, pair in judged.labels.items()},
    }


def page(asked: Asked, judged: Judged) -> Page:
    people = len(np.unique(asked.table.patients))
    made = Page(
        f"Calibration of {asked.old.name} {asked.old.version}",
        f"Fitted on {len(asked.table)} images of {people} patients, split {asked.split} of {asked.file.name}. In "
        f"brackets: 95 % intervals from {asked.resamples} drawings of patients, seed {asked.seed}.",
    )
    made.text(asked.trained)
    made.text(asked.new.calibrated_how)
    made.text(
        f"After: each of {FOLDS} folds of patients is scored by curves of the other four, so that no curve is judged "
        "by images that it was fitted on. The new card's curves are of all folds. ECE: mean distance of score and "
        "share of positives over ten bins of equally many images, beside what a perfectly calibrated score would show "
        "by chance."
    )
    made.table(
        "Before and after",
        ["label", "Brier before", "after", "ECE before", "after", "by chance"],
        [
            (name, a.brier, b.brier if b else None, a.ece, b.ece if b else None, b.by_chance if b else None)
            for name, (a, b) in [("all pooled", judged.pooled), *judged.labels.items()]
        ],
    )
    made.picture(_picture(judged), "Reliability of all labels pooled, in bins of equally many scores.")
    made.table(
        "The curves",
        ["label", "temperature", "shift", "corners", "prevalence"],
        [
            (name, None, None, len(curve.raw), asked.fitted.prevalence[name])
            if isinstance(curve, Knots)
            else (name, curve.temperature, curve.shift, None, asked.fitted.prevalence[name])
            for name, curve in asked.fitted.curves.items()
        ],
    )
    if asked.unreadable:
        made.heading("Images that could not be read")
        made.table("They count nowhere.", ["image", "why"], list(asked.unreadable.items()))
    return made


def _picture(judged: Judged) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    end = 0.0
    for found, name, color in zip(judged.pooled, ("before", "after"), ("#8a97a3", "#1f5f8b"), strict=True):
        if found:
            said, shares = [b.score for b in found.bins], [b.positive.value for b in found.bins]
            axes.plot(said, shares, marker="o", markersize=4, color=color, label=f"{name}: ECE {found.ece}")
            end = max(end, *said, *shares)
    axes.plot([0, end], [0, end], color="black", linewidth=1, linestyle=":")
    axes.set(xlabel="mean score", ylabel="share of positives")
    axes.legend(loc="upper left", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
