"""A judgement -> the page that a person reads, the figures beside it, and the lines that the command prints."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.card import Card
from model.evaluate import pictures
from model.evaluate.auroc import Difference
from model.evaluate.draws import Estimate
from model.evaluate.judge import ALL, Judgement, Label
from model.evaluate.limits import limits
from model.page import Page
from model.table import OPACITY, Table

MOST_PICTURED = 3
"""Labels with a picture of their curves; all have their figures."""

PREFERRED = (OPACITY, "Pneumonia")
"""Labels that are pictured first; then those with the most positives."""


@dataclass(frozen=True)
class Asked:
    """What was judged, and what became of it on the way."""

    card: Card
    file: Path
    split: str
    resamples: int
    seed: int
    table: Table
    """The images that were judged, the labels that model and table share."""
    left_out: tuple[str, ...]
    """Labels of the model that the table lacks."""
    unreadable: dict[str, str]
    """Image -> why; of the split that was judged."""
    rule: str
    """In words."""
    fitted: str
    """What the floors were fitted on, in words; empty where there was nothing to fit them on."""


def figures(asked: Asked, judgement: Judgement) -> dict[str, Any]:
    """What report.json holds. An interval is value, low, high; of what could not be measured all three are null."""
    return {
        "model": {"name": asked.card.name, "version": asked.card.version, "sha256": asked.card.sha256},
        "table": asked.file.name,
        "split": asked.split,
        "images": len(asked.table),
        "patients": len(np.unique(asked.table.patients)),
        "resamples": asked.resamples,
        "seed": asked.seed,
        "unreadable": asked.unreadable,
        "labels_left_out": asked.left_out,
        "threshold_rule": asked.rule,
        "floors_fitted_on": asked.fitted,
        "limits": list(limits(asked.table, asked.split, len(asked.unreadable), judgement)),
        "calibrated": asked.card.calibrated_how,
        "calibration_of_all_labels_pooled": judgement.pooled and asdict(judgement.pooled),
        "labels": {name: asdict(label) for name, label in judgement.labels.items()},
        "parts": {
            kind: {
                value: {
                    "images": part.images,
                    "patients": part.patients,
                    "mean_auroc": part.mean and asdict(part.mean),
                    "labels": {
                        name: {"auroc": asdict(area), "images": images, "positive": positive}
                        for name, (area, images, positive) in part.labels.items()
                    },
                }
                for value, part in parts.items()
            }
            for kind, parts in judgement.parts.items()
        },
        "floors": {
            floor: {
                where: {
                    "mean": found.mean and _against(*found.mean),
                    "labels": {name: _against(*pair) for name, pair in found.labels.items()},
                }
                for where, found in wheres.items()
            }
            for floor, wheres in judgement.floors.items()
        },
    }


def _against(floor: Estimate, difference: Difference) -> dict[str, Any]:
    return {"auroc": asdict(floor), "model_less_floor": asdict(difference), "over_zero": difference.over_zero}


def lines(asked: Asked, judgement: Judgement, page: Path) -> str:
    """What the command prints."""
    read = f"; {len(asked.unreadable)} more could not be read" if asked.unreadable else ""
    found = [
        f"{len(asked.table)} images of {len(np.unique(asked.table.patients))} patients, split {asked.split}{read}"
    ]
    if asked.left_out:
        found.append(f"not in the table, left out: {', '.join(asked.left_out)}")
    none = [name for name, label in judgement.labels.items() if not label.auroc]
    if none:
        found.append(f"too few positives or negatives: {', '.join(none)}")
    for name, label in pictured(judgement).items():
        found.append(f"{name}: AUROC {label.auroc} on {label.images} images, {label.positive} positive")
        found += [
            f"  above {floor} ({wheres[ALL].labels[name][0].value:.3f}) by {_signed(wheres[ALL].labels[name][1])}"
            for floor, wheres in judgement.floors.items()
        ]
    for name, part in (judgement.parts[ALL] | judgement.parts["collection"]).items():
        if part.mean:
            where = "over all images" if name == ALL else f"inside collection {name}"
            found.append(f"mean AUROC of {len(part.labels)} labels {where}: {part.mean}")
    if whole := judgement.pooled:
        without = "" if asked.card.is_calibrated else "; the card has no calibration"
        found.append(f"ECE of all labels pooled: {whole.ece}, {whole.by_chance:.3f} by chance{without}")
    return "\n".join([*found, f"report: {page}"])


def pictured(judgement: Judgement) -> dict[str, Label]:
    measured = {name: label for name, label in judgement.labels.items() if label.auroc}
    others = sorted((n for n in measured if n not in PREFERRED), key=lambda n: -measured[n].positive)
    order = [*(name for name in PREFERRED if name in measured), *others]
    return {name: measured[name] for name in order[:MOST_PICTURED]}


def page(asked: Asked, judgement: Judgement) -> Page:
    people = len(np.unique(asked.table.patients))
    made = Page(
        f"{asked.card.name} {asked.card.version}, judged",
        f"{len(asked.table)} images of {people} patients, split {asked.split} of {asked.file.name}. "
        f"In brackets: 95 % intervals from {asked.resamples} drawings of patients, seed {asked.seed}. "
        f"Weights {asked.card.sha256}.",
    )
    made.text("What may not be concluded:")
    for sentence in limits(asked.table, asked.split, len(asked.unreadable), judgement):
        made.text(sentence)
    if asked.left_out:
        made.text(f"The model also scores what the table does not have: {', '.join(asked.left_out)}.")
    _labels(made, judgement)
    _floors(made, asked, judgement)
    _thresholds(made, asked, judgement)
    _calibration(made, asked, judgement)
    made.heading("Curves")
    for name, label in pictured(judgement).items():
        made.picture(
            pictures.curves(name, label),
            f"{name}: ROC, precision and recall, reliability in bins of equally many images, decision curve with its "
            "interval. The point is the threshold.",
        )
    _subgroups(made, judgement)
    if asked.unreadable:
        made.heading("Images that could not be read")
        made.table("They count nowhere.", ["image", "why"], list(asked.unreadable.items()))
    return made


def _labels(made: Page, judgement: Judgement) -> None:
    made.heading("How well are findings told apart?")
    whole = judgement.parts[ALL][ALL]
    if whole.mean:
        made.picture(
            pictures.forest(
                [
                    *((name, area, f"{up} of {n}") for name, (area, n, up) in whole.labels.items()),
                    ("mean", whole.mean, f"of {len(whole.labels)} labels"),
                ],
                "AUROC",
            ),
            "AUROC with 95 % interval; at the right positives of images. 0.5 is guessing.",
        )
    made.table(
        "Each label where it is known",
        ["label", "images", "positive", "AUROC", "average precision"],
        [
            (name, label.images, label.positive, label.auroc or "too few", label.average_precision or "-")
            for name, label in judgement.labels.items()
        ],
    )
    parts = judgement.parts["collection"]
    if len(parts) > 1:
        made.table(
            "Mean AUROC, and inside each collection, where the collection can't give a label away",
            ["of", "images", "labels with enough of both", "mean AUROC"],
            [
                (name, part.images, len(part.labels), part.mean or "too few")
                for name, part in (judgement.parts[ALL] | parts).items()
            ],
        )


def _floors(made: Page, asked: Asked, judgement: Judgement) -> None:
    made.heading("Against the floors")
    if not judgement.floors:
        made.text("No floors: the table has no other rows to fit them on.")
        return
    made.text(
        f"Logistic regressions on what the table says, and on a 32 x 32 thumbnail; {asked.fitted}. A model that does "
        "not clear them has learnt no more than they know. Differences are taken on the same "
        "drawings of patients."
    )
    rows: list[tuple[str, Estimate, list[tuple[Estimate, Difference]]]] = []
    for where, part in (judgement.parts[ALL] | judgement.parts["collection"]).items():
        means = [wheres[where].mean for wheres in judgement.floors.values() if where in wheres]
        if part.mean and means:
            inside = "" if where == ALL else f" inside {where}"
            rows.append((f"mean of {len(part.labels)}{inside}", part.mean, [each for each in means if each]))
    for name, (area, _, _) in judgement.parts[ALL][ALL].labels.items():
        rows.append((name, area, [wheres[ALL].labels[name] for wheres in judgement.floors.values()]))
    made.table(
        "AUROC",
        ["of", "model", *judgement.floors],
        [(of, area, *(floor.value for floor, _ in pairs)) for of, area, pairs in rows],
    )
    made.table(
        "The model's AUROC less the floor's; * where the whole interval lies over zero",
        ["of", *judgement.floors],
        [(of, *(_signed(above) for _, above in pairs)) for of, _, pairs in rows],
    )


def _signed(found: Difference) -> str:
    star = "*" if found.over_zero else ""
    return f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]{star}"


def _thresholds(made: Page, asked: Asked, judgement: Judgement) -> None:
    made.heading("What the thresholds do")
    made.text(f"How they were chosen: {asked.rule}")
    measured = {n: x.at_threshold for n, x in judgement.labels.items() if x.at_threshold}
    made.table(
        "Called is what scores no less than the threshold",
        ["label", "threshold", "sensitivity", "specificity", "F1"],
        [(n, f"{x.threshold:g}", x.sensitivity, x.specificity, x.f1) for n, x in measured.items()],
    )
    made.table(
        "Confusion matrix",
        ["label", "called, present", "called, absent", "not called, present", "not called, absent"],
        [
            (n, x.true_positive, x.false_positive, x.false_negative, x.true_negative)
            for n, x in measured.items()
        ],
    )
    made.table(
        "Predictive values at the prevalence of these images",
        ["label", "prevalence", "PPV", "NPV"],
        [(n, x.prevalence, x.ppv, x.npv) for n, x in measured.items()],
    )
    elsewhere = [each.prevalence for each in next(iter(measured.values())).elsewhere] if measured else []
    for place, prevalence in enumerate(elsewhere):
        made.table(
            f"Predictive values at a prevalence of {prevalence:g}, by Bayes' rule, if patients are alike there",
            ["label", "PPV", "NPV"],
            [(n, x.elsewhere[place].ppv, x.elsewhere[place].npv) for n, x in measured.items()],
        )


def _calibration(made: Page, asked: Asked, judgement: Judgement) -> None:
    made.heading("Is a score a probability?")
    made.text(
        f"The card's calibration: {asked.card.calibrated_how}"
        if asked.card.is_calibrated
        else "The card has no calibration: scores are what the network says. `hilum model calibrate` fits one."
    )
    if whole := judgement.pooled:
        made.text(
            f"All labels pooled, {sum(each.images for each in whole.bins)} scores: ECE {whole.ece}, by chance "
            f"{whole.by_chance:.3f}; Brier score {whole.brier}, of the prevalences {whole.brier_of_prevalence:.3f}."
        )
    made.text(
        "Brier score: mean squared distance of score and truth, beside that of a score that says the prevalence every "
        "time. ECE: mean distance of score and share over ten bins of equally many images, beside the one that a "
        "perfectly calibrated score would show by chance on as many images. A drawing of patients adds chance of its "
        "own, so that the interval of an ECE lies high."
    )
    measured = {name: label for name, label in judgement.labels.items() if label.calibration}
    made.table(
        "Calibration",
        ["label", "Brier", "of the prevalence", "ECE", "by chance"],
        [
            (name, found.brier, found.brier_of_prevalence, found.ece, found.by_chance)
            for name, found in [
                ("all pooled", judgement.pooled),
                *((name, label.calibration) for name, label in measured.items()),
            ]
            if found
        ],
    )
    stated = next(iter(measured.values())).elsewhere if measured else ()
    for place, each in enumerate(stated):
        made.table(
            f"Calibration at a prevalence of {each.prevalence:g}, scores moved to it, images weighted to it, if "
            "patients are alike there",
            ["label", "scores held for", "Brier", "of the prevalence", "ECE", "by chance"],
            [
                (name, x.fitted, x.calibration.brier, x.calibration.brier_of_prevalence, x.calibration.ece,
                 x.calibration.by_chance)
                for name, label in measured.items()
                for x in [label.elsewhere[place]]
            ],
        )  # fmt: skip


def _subgroups(made: Page, judgement: Judgement) -> None:
    made.heading("On whom?")
    shown = {k: parts for k, parts in judgement.parts.items() if k != ALL}
    for name in pictured(judgement):
        rows = [("all images", *_one(judgement, ALL, ALL, name))]
        rows += [
            (f"{kind}: {value}", *_one(judgement, kind, value, name))
            for kind, parts in shown.items()
            for value, part in parts.items()
            if name in part.labels
        ]
        made.picture(pictures.forest(rows, f"AUROC of {name}"), f"{name}: AUROC in parts of the images.")
    made.table(
        "Mean AUROC in parts of the images, over the labels with enough of both there: not the same ones everywhere",
        ["part", "images", "patients", "labels", "mean AUROC"],
        [
            (f"{kind}: {value}", part.images, part.patients, len(part.labels), part.mean or "too few")
            for kind, parts in shown.items()
            for value, part in parts.items()
        ],
    )


def _one(judgement: Judgement, kind: str, value: str, name: str) -> tuple[Estimate, str]:
    area, images, positive = judgement.parts[kind][value].labels[name]
    return area, f"{positive} of {images}"
