"""A trained head -> a model folder: weights, card with figures, licence; and the figures as a table for people.

No figure is typed by hand. Images are few, so that all patients train the model that is shipped, and no one is left to
judge it by: the figures are five-fold, each patient scored by models that were chosen and fitted without it. They
judge the recipe, with four fifths of the images.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from model import card, doubt, guard, network
from model.card_text import Tree, toml, wrapped
from model.classifier import Classifier
from model.evaluate.auroc import Difference, Scores, auroc, enough, known, operating_point, paired_difference
from model.evaluate.calibration import Calibration, at_stated_prevalence, calibration, pooled
from model.evaluate.draws import draw
from model.evaluate.floors import five_fold, floors
from model.network import Weights
from model.table import FOLDS, OPACITY, Table
from model.train.exact import Rows
from model.train.finish import blank_card
from model.train.linear import FAIREST, MEANT, Judged, Trained, prepare
from model.train.recipe import Recipe

RECIPE = "the recipe"

INTENDED_USE = """
Research and demonstration: scoring frontal chest radiographs (PA or AP) of adults for 15 radiographic
findings, to show how a DICOM node passes images and results on. Not a medical device, not for diagnosis
or any clinical decision.
"""
LIMITS = """
Adults and frontal views only. Learnt from pictures of one American hospital, seen at 224 x 224 pixels, so
that small nodules, fine lines and thin pneumothoraces are out of its sight. The labels of the 14 NIH
findings were text-mined from reports and are often wrong: of the images labelled Pneumonia that
radiologists read as well, about a third show an opacity. Only Lung Opacity was read by radiologists, on
some 400 images. Scores are calibrated on these images, in which findings are more frequent than in any
clinic: where they are rarer, scores are too high. Portable (AP) films carry more disease here, and part of
each score may be the look of a portable film. The training images were chosen by label, which flatters the
model's figures. A low score rules nothing out. Never tested on another hospital's images.
"""
RULE = """
Per finding by the rule {rule} on all images, each scored by a head that was fitted
without its patient (so that all of them validate).
"""
CALIBRATED = """
Per finding a temperature and a shift of the logit, by maximum likelihood on all {images} images where the
finding is known, each with its score from a head that was fitted without its patient. A score then says which
share of such images has the finding, where the finding is as frequent as in these images. The rows are
five-fold: the curves, too, were fitted without the patients whom they are judged by. Stated: the same scores
moved to another prevalence, images weighted to it.
"""
DOUBT = """
{heads} more heads, each fitted without one fold of the patients. A call is unsettled where they do not all
make it. The rows are five-fold, by heads without the patients whom they are judged by.
"""
SCOPE = """
Learnt on the features that the head reads. Rows are of pictures that took no part in fitting: five folds of
patients for right pictures and all that was made from them, other sets whole.
"""
CURVE = ("share", "images", "lung_opacity", "mean_inside_c2")
RARER = 4
"""How many times rarer than here a finding is taken to be, where calibration is judged at another prevalence."""
VGG = """
The convolutions are VGG16's (configuration D), trained on ImageNet by Karen Simonyan and Andrew Zisserman,
Visual Geometry Group, University of Oxford ("Very Deep Convolutional Networks for Large-Scale Image
Recognition", 2014), released under CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/). Changed: the
fully connected layers are left out, the values are rounded to float16.
"""
NIH = """
The pictures and 14 of the findings are from ChestX-ray14, provided by the NIH Clinical Center
(https://nihcc.app.box.com/v/ChestXray-NIHCC): X. Wang, Y. Peng, L. Lu, Z. Lu, M. Bagheri, R. M. Summers,
"ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on Weakly-Supervised Classification and
Localization of Common Thorax Diseases", IEEE CVPR 2017, pp. 3462-3471.
"""
RSNA = """
The labels of Lung Opacity are from the RSNA Pneumonia Detection Challenge: G. Shih et al., "Augmenting the
National Institutes of Health Chest Radiograph Dataset with Expert Annotations of Possible Pneumonia",
Radiology: Artificial Intelligence 2019, 1(1):e180041. To our knowledge the challenge's terms allow
non-commercial research and education, with citation; read them before any other use of these weights.
"""
LICENCE = "WEIGHTS-LICENSE.md"


def floor_scores(table: Table) -> dict[str, Scores]:
    """Each floor's five-fold scores of the table's images."""
    return {name: five_fold(inputs, strength, table) for name, (inputs, strength) in floors(table).items()}


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What was measured beside the training, for the card."""

    judged: Judged
    """By `linear.cross_validate`."""
    by_floor: Mapping[str, Scores]
    """By `floor_scores`."""
    curve: Sequence[tuple[float, ...]]
    """By `linear.learning_curve`."""
    scope: bytes
    """The guard's file."""
    scope_rows: Sequence[Tree]
    """What it was measured to stop and to lose; as the card shows them."""


def ship(
    folder: Path, recipe: Recipe, trained: Trained, base: Weights, table: Table, evidence: Evidence
) -> Tree:
    """Writes weights, card and licence into `folder`, and returns the card's tree.

    `table`: all images that the recipe admits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    blank = dataclasses.replace(blank_card(recipe), folder=folder)
    weights = base | {"head/kernel": trained.head.kernel, "head/bias": trained.head.bias}
    network.write_weights(blank.weights_path, weights)
    (folder / LICENCE).write_text(licence(), encoding="utf-8")
    tree = card_tree(recipe, trained, table, blank.weights_path)
    judged = evidence.judged
    tree["figures"] = {"rows": figures(recipe, table, judged.raw, evidence.by_floor)}
    tree["calibration"]["rows"] = calibration_rows(table, judged.scores)
    tree["curve"] = {"rows": [dict(zip(CURVE, map(_three, row), strict=True)) for row in evidence.curve]}
    tree["scope"] = scope_tree(folder, evidence)
    tree["doubt"] = doubt_tree(folder, table, trained, judged)
    for finding in tree["findings"]:
        column = table.names.index(finding["label"])
        truth = table.labels[:, column]
        points = operating_point(truth, judged.calls[:, column], 0.5)
        finding["sensitivity"], finding["specificity"] = points
    (folder / card.CARD).write_text(toml(tree), encoding="utf-8")
    checked = check_rows(table)
    tree["self_check"] = {
        "why": "Measured on the files as written, by the way that every image goes. No figure of merit: these images "
        "trained the head.",
        "of": OPACITY,
        "images": len(checked),
        "mean_score": round(float(measure(folder, checked)[:, table.names.index(OPACITY)].mean()), 4),
    }
    (folder / card.CARD).write_text(toml(tree), encoding="utf-8")
    return tree


def check_rows(table: Table) -> Table:
    """The rows of a card's self-check: fold 0, where radiologists read."""
    return table.only((table.folds == 0) & ~np.isnan(table[OPACITY]))


def measure(folder: Path, table: Table) -> Scores:
    """The scores of a model folder on a table's images, (n, labels), by the way that every image goes."""
    model = Classifier.load(folder)
    rows = []
    for image in table.images:
        findings = model.predict(prepare(image, model.card)[None])[0]
        rows.append([finding.score for finding in findings])
    return np.array(rows, np.float64)


def report(
    folder: Path, table: Table, judged: Judged, by_floor: Mapping[str, Scores], file: Path, out: Path
) -> None:
    """The page of figures of the model in `folder`, by five folds: report.html and report.json in `out`."""
    from model.evaluate import report
    from model.evaluate.draws import RESAMPLES
    from model.evaluate.judge import Folded, judge

    about = card.load(folder)
    judgement = judge(
        table,
        judged.scores,
        about.thresholds,
        by_floor,
        prevalences=[0.05],
        folded=Folded(judged.raw, judged.calls),
        resamples=RESAMPLES,
        seed=0,
    )
    asked = report.Asked(
        card=about,
        file=file,
        split=f"all, by {FOLDS} folds of patients",
        resamples=RESAMPLES,
        seed=0,
        table=table,
        left_out=(),
        unreadable={},
        rule=about.rule,
        fitted="each image scored by regressions that were fitted on the other four of five folds of patients",
    )
    report.page(asked, judgement).write(out, report.figures(asked, judgement))


def card_tree(recipe: Recipe, trained: Trained, table: Table, weights: Path) -> Tree:
    """The card without its figures."""
    about = blank_card(recipe)
    data = weights.read_bytes()
    return {
        "schema": card.SCHEMA,
        "name": recipe.name,
        "version": recipe.version,
        "intended_use": INTENDED_USE,
        "limits": LIMITS,
        "weights": {
            "file": weights.name,
            "sha256": _sha256(data),
            "bytes": len(data),
            "licence": LICENCE,
        },
        "network": {"architecture": about.architecture, "head": about.head, "pools": list(about.pools)},
        "input": {
            "size": about.size,
            "fit": about.fit,
            "scale": about.scale,
            "mean": list(about.mean),
            "why": "The NIH pictures were stretched from the detector's matrix to a square (round markers are oval in "
            "them), and so is every picture here. Window: the image's first. Grey three times, blue, green, red means "
            "of ImageNet subtracted.",
        },
        "thresholds": {"rule": RULE.format(rule=recipe.thresholds.rule)},
        "calibration": {"method": "temperature", "how": CALIBRATED.format(images=len(table))},
        "data": {
            "source": "NIH ChestX-ray14, 300 x 300 pixels, with RSNA's readings of Lung Opacity on part of them",
            "min_age": recipe.min_age,
            "images": len(table),
            "patients": len(np.unique(table.patients)),
            "split": f"All patients trained the shipped head. The figures are by {FOLDS} folds of patients (SHA-256 of "
            f"'fold:' and the NIH patient id, modulo {FOLDS}): each is scored by heads that were chosen and fitted "
            "without it.",
            "unknown": "Lung Opacity was read on some images only; the others take no part in it. Empty is not absent.",
            "traps": "Collections were chosen by label: the collection alone, without the picture, tells findings "
            "apart (see the floors), hence the figures inside c2. AP films hold more opacities than PA films, hence "
            "both apart. Images of one patient stay together, and intervals are by patient.",
        },
        "training": {
            "convolutions": "as ImageNet left them, frozen",
            "recipe": f"{recipe.name} {recipe.version}",
            "head": "one logistic regression a finding on roots of the pools' averages, solved exactly",
            "strength": trained.strength,
            "strengths_tried": list(recipe.exact.strengths),
            "chosen_by": "mean AUROC of all findings over training patients, out of fold",
            "borrowed": "Where nobody read an image for Lung Opacity, what its other labels say of it counts "
            f"{recipe.exact.borrowed.get(OPACITY, 0)} of a reading",
            "left_behind": "an intercept a collection, so that no weight tells collections apart",
        },
        "credits": {"vgg": VGG, "nih": NIH, "rsna": RSNA},
        "findings": [_finding(name, about.display[name], trained, table) for name in recipe.labels],
    }


def _finding(name: str, display: str, trained: Trained, table: Table) -> Tree:
    positive, known = int((table[name] == 1).sum()), int((~np.isnan(table[name])).sum())
    curve = trained.curves[name]
    return {
        "label": name,
        "display": display,
        "threshold": trained.thresholds[name],
        "temperature": curve.temperature,
        "shift": curve.shift,
        "prevalence": round(positive / known, 4),
        "training_positive": positive,
        "training_known": known,
    }


def calibration_rows(table: Table, scores: Scores) -> list[Tree]:
    """How far scores are from shares: all findings pooled, then each, as frequent as here and RARER times rarer."""
    draws = draw(table.patients)
    rows = [{"of": "all findings pooled", **_ece(pooled(table, scores, draws))}]
    for name in table.names:
        truth, score, of = known(table, scores, draws, name)
        if enough(truth):
            share = float(truth.mean())
            rarer = at_stated_prevalence(truth, score, share, share / RARER, of)
            counted = {"images": len(truth), "positive": int(truth.sum())}
            rows.append(
                {"of": name, "stated": round(share, 4), **_ece(calibration(truth, score, of)), **counted}
            )
            rows.append({"of": name, "stated": round(share / RARER, 4), **_ece(rarer), **counted})
    return rows


def _three(value: float) -> float:
    return round(float(value), 3)


def scope_tree(folder: Path, evidence: Evidence) -> Tree:
    """Writes the guard's file."""
    (folder / guard.FILE).write_bytes(evidence.scope)
    return {
        "file": guard.FILE,
        "sha256": _sha256(evidence.scope),
        "how": SCOPE,
        "rows": list(evidence.scope_rows),
    }


def _sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def doubt_tree(folder: Path, table: Table, trained: Trained, judged: Judged) -> Tree:
    """Writes the other heads, and says how often they leave a call open and how much oftener such a call is wrong."""
    doubt.write(folder / doubt.FILE, [(head.kernel, head.bias) for head in trained.others])
    known = ~np.isnan(table.labels)
    wrong = (judged.calls != table.labels) & known
    rows = [_unsettled("all findings", known, wrong, judged.unsettled == 1)]
    for column, name in enumerate(table.names):
        at = [column]
        rows.append(_unsettled(name, known[:, at], wrong[:, at], judged.unsettled[:, at] == 1))
    return {
        "file": doubt.FILE,
        "sha256": _sha256((folder / doubt.FILE).read_bytes()),
        "how": DOUBT.format(heads=len(trained.others)),
        "unsettled_an_image": round(float((judged.unsettled == 1).sum(axis=1).mean()), 3),
        "rows": rows,
    }


def _unsettled(of: str, known: Rows, wrong: Rows, unsettled: Rows) -> Tree:
    """All three (n, labels)."""
    row: Tree = {"of": of, "calls": int(known.sum()), "unsettled": int((known & unsettled).sum())}
    for key, part in (("wrong_unsettled", known & unsettled), ("wrong_settled", known & ~unsettled)):
        if part.any():
            row[key] = round(float(wrong[part].mean()), 4)
    return row


def _ece(found: Calibration) -> Tree:
    figures = {
        "ece": found.ece.value,
        "low": found.ece.low,
        "high": found.ece.high,
        "by_chance": found.by_chance,
    }
    return {key: round(value, 4) for key, value in figures.items()}


def figures(recipe: Recipe, table: Table, scores: Scores, by_floor: Mapping[str, Scores]) -> list[Tree]:
    """Every figure of the card: AUROC of the recipe and of the floors on the same folds, and the differences."""
    everyone = np.ones(len(table), np.bool_)
    nih = [name for name in recipe.labels if name != OPACITY]
    fairest = table.collections == FAIREST
    means = {
        inside: [name for name in nih if int((table[name][rows] == 1).sum()) >= MEANT]
        for inside, rows in (("all", everyone), (FAIREST, fairest))
    }
    measured = {RECIPE: scores} | {f"floor: {name}": by for name, by in by_floor.items()}

    found: list[Tree] = []
    for who, by in measured.items():
        asked = [("all", everyone, [OPACITY], OPACITY)]
        asked += [(view, table.views == view, [OPACITY], OPACITY) for view in ("PA", "AP")]
        asked.append((FAIREST, fairest, [OPACITY], OPACITY))
        for inside, rows in (("all", everyone), (FAIREST, fairest)):
            asked.append((inside, rows, means[inside], f"mean of {len(means[inside])} NIH findings"))
            if who == RECIPE:
                asked += [(inside, rows, [name], name) for name in nih]
        for inside, rows, names, of in asked:
            judged = table.only(rows)
            figure = auroc(judged, by[rows], names)
            if figure:
                found.append({"who": who, "of": of, "inside": inside, **dataclasses.asdict(figure)})
            if figure and who != RECIPE and inside in ("all", FAIREST):
                more = paired_difference(judged, scores[rows], by[rows], names)
                found.append({"who": f"{RECIPE} less {who}", "of": of, "inside": inside, **_rounded(more)})
    return found


def _rounded(difference: Difference | None) -> Tree:
    tree = dataclasses.asdict(difference) if difference else {}
    return {
        "auroc" if key == "difference" else key: round(value, 3) if isinstance(value, float) else value
        for key, value in tree.items()
    }


def licence() -> str:
    """The text of WEIGHTS-LICENSE.md."""
    parts = [
        "# Licence and credits of these weights",
        "This file is about `weights.npz` and not about Hilum's source code, which has a licence of its own.",
        "## The convolutions: CC BY 4.0",
        VGG,
        "## The head (`head/kernel`, `head/bias`)",
        "Trained by Hilum's `model/train.py` on the pictures and labels below, and released under CC BY 4.0 as far as "
        "the terms of those labels allow.",
        NIH,
        "NIH places no restriction on the use of the pictures, and asks for this acknowledgement, citation and link.",
        RSNA,
        "## No clinical use",
        "These weights are no medical device. They come without warranty of any kind.",
    ]
    return "\n\n".join(part if part.startswith("#") else wrapped(part) for part in parts) + "\n"
