"""A trained head -> a model folder: weights, card with figures, licence; and the figures as a table for people.

No figure is typed by hand. Those of "this model" are measured on the folder as written, through Classifier, on the
patients that were kept back; those of "the recipe" and the floors are five-fold, each patient scored without it.
"""

import dataclasses
import hashlib
import json
import textwrap
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model import card, network
from model.classifier import Classifier
from model.data import FOLDS, Table
from model.evaluate import Scores, auroc, floors, operating_point
from model.network import Weights
from model.train import FEWEST, Recipe, Rows, Trained, card_of, fit_head, inner_scores, prepare

Tree = dict[str, Any]

OPACITY = "Lung Opacity"
FAIREST = "c2"
"""The collection whose choice of images gives the findings away the least."""
MODEL = "this model, patients kept back"
RECIPE = "the recipe, five-fold"

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
Per finding the least score that at least {share} of the training patients' images without the finding stay
below, each scored by a head that was fitted without its patient; the patients kept back took no part.
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


def ship(
    folder: Path, recipe: Recipe, trained: Trained, base: Weights, table: Table, recipe_scores: Scores
) -> Tree:
    """Writes weights, card and licence into `folder`, measures what was written, and returns the card's tree.

    `table`: all images that the recipe admits; `recipe_scores`: theirs by `train.cross_validate`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    blank = dataclasses.replace(card_of(recipe), folder=folder)
    weights = base | {"head/kernel": trained.head.kernel, "head/bias": trained.head.bias}
    network.write_weights(blank.weights_path, weights)
    (folder / LICENCE).write_text(licence(), encoding="utf-8")
    tree = card_tree(recipe, trained, table, blank.weights_path)
    (folder / card.CARD).write_text(toml(tree), encoding="utf-8")

    kept_back = table.folds == recipe.test_fold
    scores = np.full(table.labels.shape, np.nan)
    scores[kept_back] = measure(folder, table.only(kept_back))
    tree["figures"] = {"rows": figures(recipe, table, kept_back, scores, recipe_scores)}
    for finding in tree["findings"]:
        column = table.names.index(finding["label"])
        truth = table.labels[kept_back, column]
        if int((truth == 1).sum()) >= FEWEST:
            points = operating_point(truth, scores[kept_back, column], finding["threshold"])
            finding["sensitivity"], finding["specificity"] = points
    (folder / card.CARD).write_text(toml(tree), encoding="utf-8")
    return tree


def measure(folder: Path, table: Table) -> Scores:
    """The scores of a model folder on a table's images, (n, labels), by the way that every image goes."""
    model = Classifier.load(folder)
    rows = []
    for image in table.images:
        findings = model.predict(prepare(image, model.card)[None])[0]
        rows.append([finding.raw for finding in findings])
    return np.array(rows, np.float64)


def card_tree(recipe: Recipe, trained: Trained, table: Table, weights: Path) -> Tree:
    """The card without its figures."""
    about, kept_back = card_of(recipe), table.folds == recipe.test_fold
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
        "network": {"architecture": about.architecture, "pools": list(about.pools)},
        "input": {
            "size": about.size,
            "fit": about.fit,
            "scale": about.scale,
            "mean": list(about.mean),
            "why": "The NIH pictures were stretched from the detector's matrix to a square (round markers are oval in "
            "them), and so is every picture here. Window: the image's first. Grey three times, blue, green, red means "
            "of ImageNet subtracted.",
        },
        "thresholds": {"rule": RULE.format(share=f"{recipe.specificity:.0%}")},
        "data": {
            "source": "NIH ChestX-ray14, 300 x 300 pixels, with RSNA's readings of Lung Opacity on part of them",
            "min_age": recipe.min_age,
            "images": len(table),
            "patients": len(np.unique(table.patients)),
            "split": f"By patient: SHA-256 of 'fold:' and the NIH patient id, modulo {FOLDS}. Fold "
            f"{recipe.test_fold} is kept back: it decided nothing and the shipped model never saw it.",
            "training_images": int((~kept_back).sum()),
            "training_patients": len(np.unique(table.patients[~kept_back])),
            "kept_back_images": int(kept_back.sum()),
            "kept_back_patients": len(np.unique(table.patients[kept_back])),
            "unknown": "Lung Opacity was read on some images only; the others take no part in it. Empty is not absent.",
            "traps": "Collections were chosen by label: the collection alone, without the picture, tells findings "
            "apart (see the floors), hence the figures inside c2. AP films hold more opacities than PA films, hence "
            "both apart. Images of one patient stay together, and intervals are by patient.",
        },
        "training": {
            "convolutions": "as ImageNet left them, frozen",
            "head": "one logistic regression a finding on the pools' averages, standardization folded in",
            "strength": trained.strength,
            "strengths_tried": list(recipe.strengths),
            "chosen_by": "mean AUROC of all findings over training patients, out of fold",
        },
        "credits": {"vgg": VGG, "nih": NIH, "rsna": RSNA},
        "findings": [
            {
                "label": name,
                "display": about.display[name],
                "threshold": trained.thresholds[name],
                "training_positive": int((table[name][~kept_back] == 1).sum()),
                "training_known": int((~np.isnan(table[name][~kept_back])).sum()),
            }
            for name in recipe.labels
        ],
    }


def figures(
    recipe: Recipe, table: Table, kept_back: Rows, scores: Scores, recipe_scores: Scores
) -> list[Tree]:
    """Every AUROC of the card: of this model, of the recipe, and of the floors on the same rows and folds."""
    everyone = np.ones(len(table), np.bool_)
    measured = [(MODEL, kept_back, scores), (RECIPE, everyone, recipe_scores)]
    for name, (inputs, strength) in floors(table).items():
        features = inputs.astype(np.float32)
        head = fit_head(features, table.labels, ~kept_back, strength)
        measured.append((f"floor: {name}, patients kept back", kept_back, head.scores(features)))
        measured.append(
            (f"floor: {name}, five-fold", everyone, inner_scores(features, table, everyone, strength))
        )

    found: list[Tree] = []
    for who, rows, by in measured:
        _add(found, who, "all", table, rows, by, [OPACITY], OPACITY)
        for view in ("PA", "AP"):
            _add(found, who, view, table, rows & (table.views == view), by, [OPACITY], OPACITY)
        fairest = rows & (table.collections == FAIREST)
        _add(found, who, FAIREST, table, fairest, by, [OPACITY], OPACITY)
        nih = [name for name in recipe.labels if name != OPACITY]
        for inside, chosen in (("all", rows), (FAIREST, fairest)):
            known = [name for name in nih if int((table[name][chosen] == 1).sum()) >= FEWEST]
            _add(found, who, inside, table, chosen, by, known, f"mean of {len(known)} NIH findings")
            if who in (MODEL, RECIPE):
                for name in known:
                    _add(found, who, inside, table, chosen, by, [name], name)
    return found


def _add(
    found: list[Tree],
    who: str,
    inside: str,
    table: Table,
    rows: Rows,
    by: Scores,
    names: Sequence[str],
    of: str,
) -> None:
    figure = auroc(table.only(rows), by[rows], names) if names else None
    if figure:
        found.append({"who": who, "of": of, "inside": inside, **dataclasses.asdict(figure)})


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
    return "\n\n".join(part if part.startswith("#") else _wrapped(part) for part in parts) + "\n"


def table_of_figures(tree: Tree) -> str:
    """A card's figures as Markdown, for docs/model.md."""
    rows = tree["figures"]["rows"]

    def cell(who: str, of: str, inside: str) -> str:
        hit = [
            row for row in rows if (row["who"], row["inside"]) == (who, inside) and row["of"].startswith(of)
        ]
        return "{auroc:.3f} [{low:.3f}, {high:.3f}], n {images}".format(**hit[0]) if hit else "too few"

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
        "| finding | threshold | sensitivity | specificity | AUROC, kept back | five-fold | five-fold inside c2 |",
        "|---|---|---|---|---|---|---|",
    ]
    for finding in tree["findings"]:
        label = finding["label"]
        points = [f"{finding[key]:.2f}" if key in finding else "-" for key in ("sensitivity", "specificity")]
        areas = [cell(MODEL, label, "all"), cell(RECIPE, label, "all"), cell(RECIPE, label, FAIREST)]
        shown = [finding["display"], f"{finding['threshold']:.4f}", *points, *areas]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def toml(tree: Tree) -> str:
    """A card's tree as TOML: texts wrapped, `findings` as tables, other lists of tables a line each."""
    plain = [f"{key} = {_value(value)}" for key, value in tree.items() if not isinstance(value, dict | list)]
    blocks = ["\n".join(plain)]
    for key, value in tree.items():
        if isinstance(value, dict):
            blocks.append("\n".join([f"[{key}]", *(f"{k} = {_value(v)}" for k, v in value.items())]))
        elif isinstance(value, list):
            blocks += [
                "\n".join([f"[[{key}]]", *(f"{k} = {_value(v)}" for k, v in each.items())]) for each in value
            ]
    text = "\n\n".join(blocks) + "\n"
    assert tomllib.loads(text).keys() == tree.keys()
    return text


def _value(value: Any) -> str:
    if isinstance(value, str):
        text = " ".join(value.split())
        if len(text) < 80:
            return json.dumps(text, ensure_ascii=False)
        lines = json.dumps(_wrapped(text), ensure_ascii=False)[1:-1].replace("\\n", " \\\n  ")
        return f'"""\\\n  {lines}"""'
    if isinstance(value, list) and value and isinstance(value[0], dict):
        rows = ["{ " + ", ".join(f"{k} = {_value(v)}" for k, v in row.items()) + " }" for row in value]
        return "[\n" + "".join(f"  {row},\n" for row in rows) + "]"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)


def _wrapped(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 108, break_long_words=False, break_on_hyphens=False)
