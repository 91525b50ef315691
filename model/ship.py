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

from model import card, network
from model.card_text import Tree, toml, wrapped
from model.classifier import Classifier
from model.evaluate.auroc import Difference, Scores, auroc, operating_point, paired_difference
from model.evaluate.floors import five_fold, floors
from model.network import Weights
from model.table import FOLDS, OPACITY, Table
from model.train.finish import blank_card
from model.train.linear import FAIREST, MEANT, Trained, prepare
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
some 400 images. Findings are more frequent in these images than in any clinic: a score is not a
probability. Portable (AP) films carry more disease here, and part of each score may be the look of a
portable film. The training images were chosen by label, which flatters the model's figures. A low score
rules nothing out. Never tested on another hospital's images.
"""
RULE = """
Per finding by the rule {rule} on all images, each scored by a head that was fitted
without its patient (so that all of them validate).
"""
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


def ship(
    folder: Path,
    recipe: Recipe,
    trained: Trained,
    base: Weights,
    table: Table,
    judged: tuple[Scores, Scores],
    by_floor: Mapping[str, Scores],
) -> Tree:
    """Writes weights, card and licence into `folder`, and returns the card's tree.

    `table`: all images that the recipe admits; `judged`: theirs by `linear.cross_validate`; `by_floor`: by
    `floor_scores`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    blank = dataclasses.replace(blank_card(recipe), folder=folder)
    weights = base | {"head/kernel": trained.head.kernel, "head/bias": trained.head.bias}
    network.write_weights(blank.weights_path, weights)
    (folder / LICENCE).write_text(licence(), encoding="utf-8")
    tree = card_tree(recipe, trained, table, blank.weights_path)
    scores, calls = judged
    tree["figures"] = {"rows": figures(recipe, table, scores, by_floor)}
    for finding in tree["findings"]:
        column = table.names.index(finding["label"])
        truth = table.labels[:, column]
        points = operating_point(truth, calls[:, column], 0.5)
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
    folder: Path, table: Table, scores: Scores, by_floor: Mapping[str, Scores], file: Path, out: Path
) -> None:
    """The page of figures of the model in `folder`, by the five-fold `scores`: report.html and report.json in `out`."""
    from model.evaluate import report
    from model.evaluate.draws import RESAMPLES
    from model.evaluate.judge import judge

    about = card.load(folder)
    judgement = judge(
        table, scores, about.thresholds, by_floor, prevalences=[0.05], resamples=RESAMPLES, seed=0
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
            "sha256": "sha256:" + hashlib.sha256(data).hexdigest(),
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
        "findings": [
            {
                "label": name,
                "display": about.display[name],
                "threshold": trained.thresholds[name],
                "training_positive": int((table[name] == 1).sum()),
                "training_known": int((~np.isnan(table[name])).sum()),
            }
            for name in recipe.labels
        ],
    }


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


def table_of_figures(tree: Tree) -> str:
    """A card's figures as Markdown, for docs/model.md."""
    rows = tree["figures"]["rows"]

    def cell(who: str, of: str, inside: str) -> str:
        hit = [
            row for row in rows if (row["who"], row["inside"]) == (who, inside) and row["of"].startswith(of)
        ]
        return "{auroc:.3f} [{low:.3f}, {high:.3f}], n {images}".format(**hit[0]) if hit else "-"

    columns = [(OPACITY, "all"), (OPACITY, "PA"), (OPACITY, "AP"), ("mean of", "all"), ("mean of", FAIREST)]
    lines = [
        f"| AUROC [95 %] | {OPACITY} | the same, PA | the same, AP | mean of NIH findings | the same, inside c2 |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {who} | " + " | ".join(cell(who, of, inside) for of, inside in columns) + " |"
        for who in dict.fromkeys(row["who"] for row in rows)
    ]
    lines += [
        "",
        "| finding | positive | threshold | sensitivity | specificity | AUROC | inside c2 |",
        "|---|---|---|---|---|---|---|",
    ]
    for finding in tree["findings"]:
        label = finding["label"]
        points = [f"{finding[key]:.2f}" for key in ("sensitivity", "specificity")]
        areas = [cell(RECIPE, label, "all"), cell(RECIPE, label, FAIREST)]
        shown = [
            finding["display"],
            f"{finding['training_positive']}",
            f"{finding['threshold']:.4g}",
            *points,
            *areas,
        ]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def table_of_curve(curve: Sequence[tuple[float, ...]]) -> str:
    """`linear.learning_curve` as Markdown, with what ten times the images would give if it went on as it goes."""
    lines = [
        f"| share of the training patients | images | {OPACITY} | mean inside {FAIREST} |",
        "|---|---|---|---|",
        *(f"| {share:g} | {images:.0f} | {a:.3f} | {b:.3f} |" for share, images, a, b in curve),
    ]
    sizes = np.log([images for _, images, _, _ in curve])
    slopes = [np.polyfit(sizes, np.log([1 - row[column] for row in curve]), 1)[0] for column in (2, 3)]
    ten = [1 - (1 - curve[-1][column]) * 10**slope for column, slope in zip((2, 3), slopes, strict=True)]
    lines += [
        "",
        "What is missing to 1 falls as a power of the number of images "
        f"({slopes[0]:.2f} and {slopes[1]:.2f}). If that went on, which no curve promises, ten times the images would "
        f"give {ten[0]:.2f} and {ten[1]:.2f}, by frozen features. A DenseNet-121 that others trained on sixty times as "
        "many images is reported at 0.84 to 0.87 and 0.79 here.",
        "",
    ]
    return "\n".join(lines)
