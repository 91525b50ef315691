"""A comparison -> the page that a person reads, the figures beside it, and the lines that the command prints."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.card import Card
from model.compare.judge import FIGURES, LOWER_IS_BETTER, Comparison, Label, Pair
from model.evaluate import pictures
from model.evaluate.judge import ALL
from model.evaluate.scores import image_name
from model.page import Page
from model.table import Table

A, B = "A", "B"


@dataclass(frozen=True)
class Asked:
    """What was compared, and what became of it on the way."""

    cards: tuple[Card, Card]
    file: Path
    split: str
    resamples: int
    seed: int
    table: Table
    """The images that both could read, the labels that both have."""
    images: Path
    """The folder that images are named below."""
    alike: bool
    """Both are one network; thresholds or calibration may differ."""
    left_out: tuple[str, ...]
    """Labels of either that the other, or the table, lacks."""
    unreadable: dict[str, str]
    trained: tuple[str, str]
    """Of each, whether these images trained it, in words."""

    @property
    def who(self) -> str:
        a, b = self.cards
        return f"{A} is {a.name} {a.version}, {B} is {b.name} {b.version}"


def lines(asked: Asked, found: Comparison, page: Path) -> str:
    """What the command prints."""
    read = f"; {len(asked.unreadable)} more could not be read" if asked.unreadable else ""
    said = [
        asked.who,
        f"{len(asked.table)} images of {_people(asked)} patients, split {asked.split}{read}",
        *asked.trained,
    ]
    if asked.alike:
        said.append("both are one network: only thresholds and calibration can differ")
    if asked.left_out:
        said.append(f"not in both and the table, left out: {', '.join(asked.left_out)}")
    none = [name for name, label in found.labels.items() if not label.figures]
    if none:
        said.append(f"too few positives or negatives: {', '.join(none)}")
    for figure, pair in found.mean.items():
        said.append(f"mean {figure}, {A} less {B}: {_signed(pair)}, {pair.verdict}")
    said += _verdicts(found)
    return "\n".join([*said, f"report: {page}"])


def figures(asked: Asked, found: Comparison) -> dict[str, Any]:
    """What report.json holds. An interval is value, low, high; of what could not be measured all three are null."""
    return {
        "models": [
            {"name": c.name, "version": c.version, "sha256": c.sha256, "thresholds": c.thresholds}
            for c in asked.cards
        ],
        "table": asked.file.name,
        "split": asked.split,
        "images": len(asked.table),
        "patients": _people(asked),
        "resamples": asked.resamples,
        "seed": asked.seed,
        "one_network": asked.alike,
        "unreadable": asked.unreadable,
        "labels_left_out": asked.left_out,
        "trained": asked.trained,
        "mean": {figure: _told(pair) for figure, pair in found.mean.items()},
        "labels": {
            name: {
                "images": label.images,
                "positive": label.positive,
                "figures": {figure: _told(pair) for figure, pair in label.figures.items()},
                "agreement": asdict(label.agreement) | {"p_holm": label.holm},
                "rank_correlation": label.correlation,
                "apart": [
                    {"image": _name(asked, each.row), "a": each.first, "b": each.second, "truth": each.truth}
                    for each in label.apart
                ],
            }
            for name, label in found.labels.items()
        },
    }


def page(asked: Asked, found: Comparison) -> Page:
    made = Page(
        "Two models on the same images",
        f"{asked.who}. {len(asked.table)} images of {_people(asked)} patients that both could read, split "
        f"{asked.split} of {asked.file.name}. In brackets: 95 % intervals from {asked.resamples} drawings of patients, "
        f"seed {asked.seed}, the same for both. Weights {asked.cards[0].sha256} and {asked.cards[1].sha256}.",
    )
    made.text("What may be concluded:")
    for sentence in _sentences(asked, found):
        made.text(sentence)
    measured = {name: label for name, label in found.labels.items() if label.figures}
    if measured:
        _differences(made, found, measured)
    _decisions(made, found.labels)
    _apart(made, asked, found.labels)
    if asked.unreadable:
        made.heading("Images that one or both could not read")
        made.table("They count nowhere.", ["image", "why"], list(asked.unreadable.items()))
    return made


def _sentences(asked: Asked, found: Comparison) -> list[str]:
    said = list(asked.trained)
    if asked.split in (ALL, "train", "validation"):
        said.append(
            f"Split {asked.split} was compared: a model that learnt or chose by such images is flattered."
        )
    if asked.alike:
        said.append("Both are one network: only thresholds and calibration can differ, and no AUROC.")
    for figure, pair in found.mean.items():
        better = _better(figure, pair)
        said.append(f"Mean {figure} of the labels, {A} less {B}: {_signed(pair)}: {pair.verdict}. {better}")
    said += _verdicts(found)
    if asked.left_out:
        said.append(f"Left out, not in both models and the table: {', '.join(asked.left_out)}.")
    return said


def _better(figure: str, pair: Pair) -> str:
    if pair.difference.value == pair.difference.low == pair.difference.high == 0:
        return "Both are the same here."
    if pair.verdict == "not told apart":
        return "These images do not tell which is better; that is not to say that both are alike."
    if figure in ("sensitivity", "specificity"):
        return "The one goes against the other: look at both."
    first = (pair.verdict == "over zero") != (figure in LOWER_IS_BETTER)
    return f"{A if first else B} is better."


def _verdicts(found: Comparison) -> list[str]:
    """Labels whose AUROC is told apart, and how many of them chance alone would bring."""
    measured = {name: label.figures["AUROC"] for name, label in found.labels.items() if label.figures}
    if not measured:
        return []
    over = [name for name, pair in measured.items() if pair.verdict == "over zero"]
    under = [name for name, pair in measured.items() if pair.verdict == "under zero"]
    return [
        f"AUROC of {A} above {B}: {', '.join(over) or 'no label'}; of {B} above {A}: {', '.join(under) or 'no label'}; "
        f"not told apart: {len(measured) - len(over) - len(under)} of {len(measured)} labels. Of {len(measured)} "
        f"intervals of two equal models {0.05 * len(measured):.1f} would miss zero by chance."
    ]


def _differences(made: Page, found: Comparison, measured: dict[str, Label]) -> None:
    made.heading("Which tells findings apart better?")
    made.picture(
        pictures.forest(
            [
                *(
                    (n, x.figures["AUROC"].difference, f"{x.positive} of {x.images}")
                    for n, x in measured.items()
                ),
                ("mean", found.mean["AUROC"].difference, f"of {len(measured)} labels"),
            ],
            f"AUROC of {A} less that of {B}",
            middle=0.0,
        ),
        f"AUROC of {A} less that of {B} with 95 % interval; at the right positives of images. Above 0 {A} is better.",
    )
    for figure in FIGURES:
        lower = "; the lower the better" if figure in LOWER_IS_BETTER else ""
        at = ", each at its own thresholds" if figure in ("sensitivity", "specificity", "F1") else ""
        made.table(
            f"{figure}{at}{lower}",
            ["label", A, B, f"{A} less {B}", "which is"],
            [
                (name, pair.first, pair.second, _signed(pair), pair.verdict)
                for name, pair in [
                    *((name, label.figures[figure]) for name, label in measured.items()),
                    ("mean", found.mean[figure]),
                ]
            ],
        )
    made.text(
        f"Of {len(measured)} intervals {0.05 * len(measured):.1f} would miss zero by chance if both models were equal: "
        "trust the mean before a label. Sensitivity and specificity go against each other: look at both. An ECE's "
        "interval lies high, since a drawing of patients adds chance of its own."
    )


def _decisions(made: Page, labels: dict[str, Label]) -> None:
    made.heading("Do they decide alike?")
    made.table(
        "Images that each calls at its own threshold, known or not",
        ["label", "both", f"only {A}", f"only {B}", "none", "rank correlation of scores"],
        [
            (
                n,
                x.agreement.both,
                x.agreement.only_first,
                x.agreement.only_second,
                x.agreement.none,
                x.correlation,
            )
            for n, x in labels.items()
        ],
    )
    made.table(
        "Where they differ and the truth is known: who is right; McNemar's exact test",
        ["label", f"{A} right", f"{B} right", "p", "p by Holm"],
        [
            (n, x.agreement.first_right, x.agreement.second_right, x.agreement.p, x.holm)
            for n, x in labels.items()
            if x.images
        ],
    )
    made.text(
        "The test takes images as independent, which several of one patient are not: where patients have many images "
        f"it is too sure. p by Holm is corrected for the {len(labels)} labels. Being right more often is not being "
        "better: who never calls a rare finding is right on most images."
    )


def _apart(made: Page, asked: Asked, labels: dict[str, Label]) -> None:
    rows = [
        (name, _name(asked, each.row), each.first, each.second, _truth(each.truth))
        for name, label in labels.items()
        for each in label.apart
    ]
    made.heading("Where do they differ most?")
    if rows:
        made.table("Images whose two scores lie farthest apart", ["label", "image", A, B, "truth"], rows)
    else:
        made.text("No image has two different scores.")


def _truth(value: float) -> str:
    return "unknown" if np.isnan(value) else ("present" if value == 1 else "absent")


def _told(pair: Pair) -> dict[str, Any]:
    return {
        "a": asdict(pair.first),
        "b": asdict(pair.second),
        "a_less_b": asdict(pair.difference),
        "verdict": pair.verdict,
    }


def _signed(pair: Pair) -> str:
    found = pair.difference
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def _name(asked: Asked, row: int) -> str:
    return image_name(asked.table.images[row], asked.images)


def _people(asked: Asked) -> int:
    return len(np.unique(asked.table.patients))
