"""The end of a run: the best weights as a model folder, calibration and thresholds by the validation images, a report.

What is measured here is what is shipped: the weights as the file has them (float16, standardization folded in), by the
network that a node would build from the card.
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import numpy as np

from model import network
from model.calibrate import Doubles, shares
from model.card import CARD, METHODS, Card
from model.card_text import toml
from model.network import Weights
from model.page import Page, replace
from model.recalibrate.fit import fit, with_curves
from model.train import tuned
from model.train.augment import AS_IT_IS
from model.train.checkpoint import State
from model.train.loop import Run
from model.train.measure import FIGURES, MEAN, Measured, counting, measure
from model.train.pictures import Floats
from model.train.recipe import Recipe

BATCH = 16
IMAGENET_MEAN = (103.939, 116.779, 123.68)
"""Of blue, green and red over ImageNet, as VGG16 was trained."""
UNSURE = 0.5
"""The threshold of a label with too few validation images to choose one."""
INTENDED_USE = """
Research: scoring frontal chest radiographs for the findings below. Not a medical device, not for diagnosis or any
clinical decision.
"""
LIMITS = """
Trained by `hilum model train` and judged on its validation images only, which also chose the epoch and the thresholds:
the figures here flatter it. Nothing is known about other hospitals, devices or ages than those of its training images.
Scores are calibrated on these validation images, for the prevalence that they have, which the card names: where a
finding is rarer, scores are too high, until `hilum model calibrate` has moved them. Judge it by `hilum model evaluate`
on patients that it never saw, and say here what that found.
"""
WORDS = {
    "f1": "maximal F1",
    "youden": "maximal Youden index (sensitivity + specificity - 1)",
    "sensitivity": "a sensitivity of at least {}",
    "specificity": "a specificity of at least {}",
}


def blank_card(recipe: Recipe) -> Card:
    """What a recipe says of the network and its input, as a card: thresholds and hash are not known yet."""
    return Card(
        name=recipe.name,
        version=recipe.version,
        intended_use=" ".join(INTENDED_USE.split()),
        limits=" ".join(LIMITS.split()),
        folder=Path(),
        weights="weights.npz",
        sha256="",
        architecture="vgg16",
        pools=recipe.network.pools,
        size=recipe.size,
        fit="stretch",
        scale=255.0,
        mean=IMAGENET_MEAN,
        labels=recipe.labels,
        display={label: label.replace("_", " ") for label in recipe.labels},
        thresholds={},
        rule="",
        head=recipe.network.head,
        hidden=recipe.network.hidden,
    )


def finish(run: Run, state: State, out: Path, facts: dict[str, Any]) -> str:
    """Writes model folder and report into `out`; returns the line for the person."""
    card = write_weights(run.recipe, state.weights, out / "model")
    raw = _validation_scores(run, card)
    truth = np.where(np.isnan(raw), np.nan, run.table.labels[run.validation])
    card = _calibrated(run, card, truth, raw)
    scores = shares(card.calibrations, card.labels, raw.astype(np.float64))
    thresholds = _thresholds(run.recipe, truth, scores)
    card = changed(card, thresholds=thresholds, rule=_rule(run.recipe, truth))
    measured = measure(truth, scores, run.recipe.labels, run.recipe.thresholds.least, thresholds)
    replace(card.folder / CARD, _card_text(run, state, card, measured, facts))
    page = _report(run, state, card, measured, facts).write(out, _figures(run, state, card, measured, facts))
    mean = measured["labels"][MEAN]["auroc"]
    return f"{card.folder}: mean AUROC {mean:.3f} on {len(truth)} validation images; report: {page}"


def write_weights(recipe: Recipe, weights: Weights, folder: Path) -> Card:
    """The weights file of a model folder, whole or not at all, and the card that it is to have."""
    folder.mkdir(parents=True, exist_ok=True)
    card = changed(blank_card(recipe), folder=folder)
    half = card.weights_path.with_name("weights.part")
    network.write_weights(half, tuned.shipped(recipe, weights))
    digest = hashlib.sha256(half.read_bytes()).hexdigest()
    # An older card would not fit these weights: for a moment there is none.
    (folder / CARD).unlink(missing_ok=True)
    half.replace(card.weights_path)
    return changed(card, sha256=f"sha256:{digest}")


def _validation_scores(run: Run, card: Card) -> Floats:
    """(n, labels); NaN for images that can't be read."""
    filled = network.load(card)
    rows = run.validation
    picked = [(part, np.full(len(part), AS_IT_IS)) for part in _parts(rows)]
    found = []
    for (numbers, _), batch in zip(picked, run.pictures.batches(picked, BATCH), strict=True):
        found.append(np.asarray(filled.predict_on_batch(batch), np.float32)[: len(numbers)])
    scores = np.concatenate(found)
    scores[[int(number) in run.pictures.unreadable for number in rows]] = np.nan
    return scores


def _calibrated(run: Run, card: Card, truth: Floats, raw: Floats) -> Card:
    """The card with a temperature and a shift a label, by the validation images."""
    fitted = fit(card.labels, truth, raw.astype(np.float64))
    people = len(set(run.table.patients[run.validation]))
    images = f"the {len(truth)} validation images ({people} patients), which also chose the epoch"
    return changed(
        card,
        calibrations=fitted.curves,
        prevalence=fitted.prevalence,
        calibrated_how=fitted.how(images),
    )


def _parts(rows: Any) -> list[Any]:
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]


def _thresholds(recipe: Recipe, truth: Floats, scores: Doubles) -> dict[str, float]:
    """Label -> threshold, by the recipe's rule over the validation images where the label is known."""
    from model.evaluate.thresholds import choose

    found = {}
    chosen = counting(truth, recipe.thresholds.least)
    for column, label in enumerate(recipe.labels):
        found[label] = UNSURE
        seen = ~np.isnan(truth[:, column])
        if chosen[column]:
            found[label] = choose(truth[seen, column], scores[seen, column], recipe.thresholds.rule)
        else:
            print(
                f"{label}: fewer than {recipe.thresholds.least} positive or negative validation images; "
                f"its threshold is {UNSURE}",
                file=sys.stderr,
            )
    return found


def _rule(recipe: Recipe, truth: Floats) -> str:
    kind, _, share = recipe.thresholds.rule.partition("=")
    counted = zip(recipe.labels, counting(truth, recipe.thresholds.least), strict=True)
    few = [label for label, enough in counted if not enough]
    without = (
        f" Too few of them for {', '.join(few)}: {UNSURE} stands there for want of a choice." if few else ""
    )
    return (
        f"Per finding the threshold with {WORDS[kind].format(share)} on the {len(truth)} validation images, "
        f"as far as the finding is known there; no other image took part.{without}"
    )


def _card_text(run: Run, state: State, card: Card, measured: Measured, facts: dict[str, Any]) -> str:

    recipe, rows = run.recipe, run.table
    findings = []
    for column, label in enumerate(recipe.labels):
        seen = rows.labels[run.training, column]
        finding: dict[str, Any] = {
            "label": label,
            "display": card.display[label],
            "threshold": card.thresholds[label],
            "training_positive": int((seen == 1).sum()),
            "training_known": int((~np.isnan(seen)).sum()),
        }
        area = measured["labels"][label]["auroc"]
        if np.isfinite(area):
            finding["validation_auroc"] = round(area, 3)
        findings.append(with_curves(finding, card.calibrations[label], card.prevalence[label]))
    return toml(
        {
            "schema": 1,
            "name": card.name,
            "version": card.version,
            "intended_use": card.intended_use,
            "limits": card.limits,
            "weights": {
                "file": card.weights,
                "sha256": card.sha256,
                "bytes": card.weights_path.stat().st_size,
            },
            "network": {
                "architecture": card.architecture,
                "head": card.head,
                "pools": list(card.pools),
                "hidden": list(card.hidden),
            },
            "input": {"size": card.size, "fit": card.fit, "scale": card.scale, "mean": list(card.mean)},
            "thresholds": {"rule": card.rule},
            "calibration": {"method": METHODS[0], "how": card.calibrated_how},
            "data": {
                "min_age": recipe.min_age,
                "training_images": len(run.training),
                "training_patients": len(set(rows.patients[run.training])),
                "validation_images": len(run.validation),
                "validation_patients": len(set(rows.patients[run.validation])),
                "unreadable_images": len(run.pictures.unreadable),
                "table": facts["table"],
            },
            "training": {
                "recipe_sha256": f"sha256:{hashlib.sha256(facts['recipe'].encode()).hexdigest()}",
                "seed": run.seed,
                "stages": [stage.name for stage in recipe.stages],
                "epochs": state.total,
                "best_epoch": state.best_epoch,
                "backend": facts["backend"],
                "precision": facts["precision"],
                "versions": " ".join(f"{name} {number}" for name, number in facts["versions"].items()),
            },
            "findings": findings,
        }
    )


def _report(run: Run, state: State, card: Card, measured: Measured, facts: dict[str, Any]) -> Page:
    recipe = run.recipe
    page = Page(
        f"Training of {card.name} {card.version}",
        f"{len(run.training)} images trained, {len(run.validation)} validated; the best of {state.total} epochs is "
        f"epoch {state.best_epoch}. Validation images chose it and the thresholds: their figures flatter the model.",
    )
    page.heading("Epochs")
    page.picture(
        _curves(state, recipe.labels),
        "Loss and AUROC by epoch: on validation images the mean in black, each finding in grey; on as many training "
        "images the mean in blue. What lies between is learnt by heart. Dashed lines begin a stage, the dotted one is "
        "the best epoch. The training loss is weighted and smoothed as the recipe says, the validation loss is "
        "plain cross-entropy: compare each with itself only.",
    )
    page.heading("The model on the validation images")
    page.table(
        "Accuracy, precision, recall and F1 at the threshold (in the epochs: at 0.5)",
        ["finding", "positive", "known", "threshold", *FIGURES],
        [_row(run, card, measured, label) for label in (*recipe.labels, MEAN)],
    )
    page.text(card.rule)
    page.text(card.calibrated_how)
    if run.pictures.unreadable:
        page.heading("Left out")
        page.table(
            "Images that can't be read",
            ["image", "reason"],
            [(run.pictures.images[n].name, reason) for n, reason in sorted(run.pictures.unreadable.items())],
        )
    page.heading("The run")
    told = {
        "seed": run.seed,
        **{key: facts[key] for key in ("backend", "precision", "table")},
        **facts["versions"],
    }
    page.table("What it was made with", ["what", ""], list(told.items()))
    page.table("The recipe", ["line"], [[line] for line in facts["recipe"].splitlines() if line.strip()])
    return page


def _row(run: Run, card: Card, measured: Measured, label: str) -> list[object]:
    figures = [measured["labels"][label][figure] for figure in FIGURES]
    if label == MEAN:
        return [f"mean of those with {run.recipe.thresholds.least} of each", None, None, None, *figures]
    truth = run.table[label][run.validation]
    known = int((~np.isnan(truth)).sum())
    return [card.display[label], int((truth == 1).sum()), known, card.thresholds[label], *figures]


def _curves(state: State, labels: Sequence[str]) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in state.history]
    figure = Figure(figsize=(10, 4))
    losses, areas = figure.subplots(1, 2)
    losses.plot(epochs, [row["loss"] for row in state.history], marker=".", label="training")
    losses.plot(epochs, [row["validation"]["loss"] for row in state.history], marker=".", label="validation")
    losses.set(xlabel="epoch", ylabel="loss")
    losses.legend()
    for label in (*labels, MEAN):
        values = [row["validation"]["labels"][label]["auroc"] for row in state.history]
        areas.plot(
            epochs, values, color="black" if label == MEAN else "0.8", linewidth=2 if label == MEAN else 0.8
        )
    learnt = [row["training"]["labels"][MEAN]["auroc"] for row in state.history]
    areas.plot(epochs, learnt, color="tab:blue", linewidth=1.2, linestyle="--", label="training")
    areas.axvline(state.best_epoch, linestyle=":", color="tab:red")
    areas.set(xlabel="epoch", ylabel="AUROC")
    for before, row in zip(state.history, state.history[1:], strict=False):
        if row["stage"] != before["stage"]:
            for axes in (losses, areas):
                axes.axvline(row["epoch"] - 0.5, linestyle="--", color="0.7")
    for axes in (losses, areas):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    return figure


def _figures(run: Run, state: State, card: Card, measured: Measured, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": card.name,
        "version": card.version,
        "validation": measured,
        "thresholds": card.thresholds,
        "rule": card.rule,
        "calibration": {"how": card.calibrated_how, "prevalence": card.prevalence},
        "best_epoch": state.best_epoch,
        "epochs": state.history,
        "unreadable": [
            [run.pictures.images[n].name, why] for n, why in sorted(run.pictures.unreadable.items())
        ],
        "run": facts,
    }
