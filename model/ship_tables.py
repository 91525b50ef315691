"""A card's figures as Markdown tables, for docs/model.md and docs/scope.md; nothing in them is typed by hand."""

from collections.abc import Sequence

import numpy as np

from model.card_text import Tree
from model.ship import RECIPE
from model.table import OPACITY
from model.train.linear import FAIREST


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


def table_of_calibration(tree: Tree) -> str:
    """How far the card's scores are from shares."""
    lines = ["| finding | share | ECE [95 %] | by chance |", "|---|---|---|---|"]
    for row in tree["calibration"]["rows"]:
        share = f"{row['stated']:.3f}" if "stated" in row else "as it is"
        lines.append(
            f"| {row['of']} | {share} | {row['ece']:.3f} [{row['low']:.3f}, {row['high']:.3f}] | "
            f"{row['by_chance']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def table_of_doubt(tree: Tree) -> str:
    """How often calls are close, and how often such calls are wrong."""
    lines = ["| finding | calls | close | of these wrong | of the others wrong |", "|---|---|---|---|---|"]
    for row in tree["doubt"]["rows"]:
        wrong = [f"{row[key]:.1%}" if key in row else "-" for key in ("wrong_unsettled", "wrong_settled")]
        lines.append(f"| {row['of']} | {row['calls']} | {row['unsettled']} | " + " | ".join(wrong) + " |")
    lines += ["", f"Close calls an image: {tree['doubt']['unsettled_an_image']:.2f}."]
    return "\n".join(lines) + "\n"


def table_of_scope(tree: Tree) -> str:
    """What the guard stops, kind by kind and set by set, and what it costs in right pictures."""
    lines = ["| kind | set | fitted on | pictures | stopped | share [95 %] |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row['kind']} | {row['set']} | {row['fitted_on']} | {row['images']} | {row['stopped']} | "
        f"{row['share']:.3f} [{row['low']:.3f}, {row['high']:.3f}] |"
        for row in tree["scope"]["rows"]
    ]
    return "\n".join(lines) + "\n"
