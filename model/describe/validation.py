"""6. How the model would be validated, what it would have to reach, and where it stands today.

What stands in `PLAN` are targets and assumptions of a plan, fixed before any image of it is read; the text says so
wherever one is printed. The published figures are those of CheXNet: P. Rajpurkar et al., arXiv:1711.05225, 2017, and
https://stanfordmlgroup.github.io/projects/chexnet.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from model import scope
from model.describe.document import Block, Facts, Heading, Points, Table, Words
from model.describe.figures import (
    NOT_KNOWN,
    NOT_MEASURED,
    best_f1,
    f1_at,
    percent,
    rates,
    said,
    shown,
    table_of,
)
from model.describe.samples import Asked, Target, for_auroc, for_f1, for_sensitivity, for_specificity, trials
from model.describe.sources import Sources, Tree, number, rows_of
from model.evaluate.draws import Estimate
from model.evaluate.report import PREFERRED
from model.evaluate.subgroups import BANDS

RADIOLOGISTS = Estimate(0.387, 0.330, 0.442)
"""The average F1 of four radiologists for pneumonia, each against the others, on 420 frontal chest X-rays."""
CHEXNET = Estimate(0.435, 0.387, 0.481)
"""Of their network, on the same images."""
IMAGES_THERE, RADIOLOGISTS_THERE = 420, 4
PNEUMONIA = "Pneumonia"


@dataclass(frozen=True)
class Plan:
    """Targets and assumptions, none of them measured."""

    asked: Asked
    f1: Target
    auroc: Target
    sensitivity: Target
    specificity: Target
    hospitals: int = 3
    """None of which gave images to train with."""
    readers: int = RADIOLOGISTS_THERE
    positives_a_group: int = 50
    """With the finding, in each view, sex and age band."""
    margin: float = 0.05
    """By which the model's F1 may lie below the readers' on the same images, at the low end of the interval."""
    ece: float = 0.04
    strange_stopped: float = 0.95
    right_lost: float = 0.02
    unusable: float = 0.05
    """Of the images, for whatever reason."""
    manufacturers: int = 3
    years: int = 5
    """In practice, of each reader."""


PLAN = Plan(
    asked=Asked(confidence=0.95, power=0.9, prevalence=0.05),
    f1=Target(RADIOLOGISTS.value, 0.45),
    auroc=Target(0.80, 0.85),
    sensitivity=Target(0.40, 0.50),
    specificity=Target(0.92, 0.95),
)
PREVALENCES = (0.01, 0.05, 0.10, 0.20)
"""At which the same sensitivity and specificity are turned into F1."""


def validation(sources: Sources) -> list[Block]:
    return [
        Heading("6. Validation plan", 1),
        Words(
            "A plan. Numbers in 6.1 to 6.4 are targets and assumptions, fixed before an image is read, and not "
            "measured; 6.5 and 6.6 say what was measured so far."
        ),
        Heading("6.1 Patient population"),
        _population(sources),
        Heading("6.2 Ground truth acquisition"),
        Points(_truth()),
        Heading("6.3 Performance standard and acceptance criteria"),
        *_standard(sources),
        Heading("6.4 Sample size"),
        *_size(),
        Heading("6.5 Where the model stands now"),
        *_now(sources),
        Heading("6.6 All that was measured"),
        *_figures(sources),
    ]


def asked_of(sources: Sources) -> list[str]:
    """The findings that the plan is about: pneumonia and lung opacity, or the model's first."""
    found = [label for label in (PNEUMONIA, *PREFERRED) if label in sources.card.labels]
    return list(dict.fromkeys(found)) or [sources.card.labels[0]]


def _population(sources: Sources) -> Facts:
    bands = [name for name, (least, _) in BANDS.items() if least >= scope.Policy().min_age]
    name = sources.card.display[asked_of(sources)[0]]
    return Facts(
        [
            (
                "Who",
                f"consecutive patients of {scope.Policy().min_age} years or more from at least {PLAN.hospitals} "
                "hospitals that gave no image to train with; the first image of each patient",
            ),
            (
                "Age",
                f"as they come; read on until each band ({', '.join(bands)} years) has {PLAN.positives_a_group} with "
                "the finding",
            ),
            ("Sex", f"as they come; at least {PLAN.positives_a_group} with the finding of each"),
            (
                "Modality",
                f"{', '.join(sorted(scope.MODALITIES))}, of at least {PLAN.manufacturers} manufacturers",
            ),
            ("View", f"PA and AP, at least {PLAN.positives_a_group} with the finding in each"),
            ("Body part", "chest"),
            (
                "Prevalence",
                f"as it comes; {percent(PLAN.asked.prevalence)} of images with {name} are assumed for the sample size. "
                "Nothing is chosen by label",
            ),
            (
                "Comorbidity",
                "nobody is left out for another disease: the readers note every finding of the model, and tubes, "
                "devices and old changes; figures are given with and without each",
            ),
            (
                "Left out",
                "what the rules of section 2.2 leave out, and what can't be decoded: counted, with the reasons, and "
                "looked at by a radiologist",
            ),
        ]
    )


def _truth() -> list[str]:
    return [
        f"A silver standard: {PLAN.readers} radiologists, each with at least {PLAN.years} years of practice, read "
        "each image alone, in an order of its own, without report, history or the model's scores, and say present "
        "or absent for each finding.",
        "The truth is the majority of three. Each reader is judged against the other three, and the model against each "
        "group of three, as in the published comparison; the mean of the groups is what counts.",
        "Agreement is reported: Fleiss' kappa of each finding, with its interval. Ties and images that a reader calls "
        "unreadable are counted and not decided by the model's makers.",
        "It is silver and not gold: what can't be seen on the picture is not in it. Where a CT of the chest of the "
        "same or the next day exists, its report is compared as well, apart.",
        "The makers of the model see neither images nor truth before the model, its thresholds, this plan and the "
        "program that judges are fixed by their hashes.",
    ]


def _standard(sources: Sources) -> list[Block]:
    names = asked_of(sources)
    name = sources.card.display[names[0]]
    other = (
        []
        if names[0] == PNEUMONIA
        else [
            Words(
                f"The published figure is of pneumonia: for {name} it is taken over, for want of one of its own."
            )
        ]
    )
    return [
        Words(
            f"Published: the average F1 of {RADIOLOGISTS_THERE} radiologists for pneumonia was {said(RADIOLOGISTS)} on "
            f"{IMAGES_THERE} frontal chest X-rays, that of the network CheXNet {said(CHEXNET)} on the same images "
            "(P. Rajpurkar et al., CheXNet, 2017, arXiv:1711.05225)."
        ),
        Words(
            "F1 is the harmonic mean of recall and precision, and precision depends on how frequent the finding is: "
            "an F1 of other images, with another share of pneumonia, is a mark to aim at and no fair comparison. "
            "Hence the second criterion: readers on the same images."
        ),
        *other,
        Table(
            f"Acceptance criteria for {name}, fixed beforehand; all of them must hold. Targets, not results",
            ["", "figure", "holds where", "now"],
            _criteria(sources, names[0]),
        ),
    ]


def _criteria(sources: Sources, label: str) -> list[list[str]]:
    judged = sources.judged(label)
    _, specificity = rates(sources, label)
    f1 = judged.called.f1 if judged and judged.called else None
    auroc = judged.auroc if judged else None
    pooled = sources.report.pooled_ece if sources.report else None
    ece = pooled or (judged.ece if judged else None)
    return [
        [
            "1",
            "F1 at the card's threshold",
            f"the interval's low end is above {PLAN.f1.floor:g}",
            _above(f1, PLAN.f1.floor),
        ],
        [
            "2",
            "F1 less the readers' mean F1 on the same images",
            f"the paired difference's low end is above {-PLAN.margin:g}",
            NOT_MEASURED,
        ],
        [
            "3",
            "AUROC",
            f"the interval's low end is above {PLAN.auroc.floor:g}",
            _above(auroc, PLAN.auroc.floor),
        ],
        [
            "4",
            "Specificity at the card's threshold",
            f"the interval's low end is above {PLAN.specificity.floor:g}",
            _above(specificity, PLAN.specificity.floor),
        ],
        [
            "5",
            "AUROC in each view, sex, age band and hospital",
            f"no interval lies wholly below {PLAN.auroc.floor:g}",
            _groups(sources, label),
        ],
        [
            "6",
            "Expected calibration error, ten bins of equally many images",
            f"{PLAN.ece:g} or less, at the site's prevalence",
            _at_most(ece, PLAN.ece),
        ],
        [
            "7",
            "Images out of scope",
            f"at least {percent(PLAN.strange_stopped)} of each kind stopped, at most {percent(PLAN.right_lost)} of "
            "right ones lost",
            "see section 2.4" if _has_scope_rows(sources) else NOT_MEASURED,
        ],
    ]


def _above(found: Estimate | None, floor: float) -> str:
    if found is None:
        return NOT_MEASURED
    if math.isnan(found.low):
        return f"{said(found)}: no interval was measured"
    if found.low > floor:
        return f"{said(found)}: holds on these images"
    return f"{said(found)}: {'does not hold' if found.high < floor else 'not shown'}"


def _at_most(found: Estimate | None, most: float) -> str:
    if found is None:
        return NOT_MEASURED
    return f"{said(found)}: {'holds on these images' if found.value <= most else 'does not hold'}, at their prevalence"


def _groups(sources: Sources, label: str) -> str:
    report = sources.report
    areas = [
        (value, part.labels[label][0])
        for kind, parts in (report.parts if report else {}).items()
        if kind in ("view", "sex", "age", "collection")
        for value, part in parts.items()
        if label in part.labels
    ]
    if not areas:
        return NOT_MEASURED
    below = [value for value, area in areas if area.high < PLAN.auroc.floor]
    if below:
        return f"does not hold for {', '.join(below)} (of {len(areas)} parts)"
    return f"holds on these images, in {len(areas)} parts"


def _has_scope_rows(sources: Sources) -> bool:
    return bool(rows_of(sources.table("figures").get("scope")) or rows_of(sources.table("scope")))


def _size() -> list[Block]:
    asked = PLAN.asked
    first, second = asked.z
    f1_images = for_f1(PLAN.f1, PLAN.sensitivity.expected, asked)
    rows = [
        ("F1", PLAN.f1, f1_images),
        ("AUROC", PLAN.auroc, for_auroc(PLAN.auroc, asked)),
        ("sensitivity", PLAN.sensitivity, for_sensitivity(PLAN.sensitivity, asked)),
        ("specificity", PLAN.specificity, for_specificity(PLAN.specificity, asked)),
    ]
    most = max(images for _, _, images in rows)
    whole = math.ceil(most / (1 - PLAN.unusable) / 100) * 100
    return [
        Words(
            f"For each figure: images enough that its {percent(asked.confidence)} interval lies above the floor with "
            f"a power of {percent(asked.power)}, if the figure is as expected, at a prevalence of "
            f"{percent(asked.prevalence)}. Floors, expectations and prevalence are assumptions of the plan."
        ),
        Table(
            "Images needed, computed",
            ["figure", "floor", "expected", "with the finding", "images"],
            [
                [
                    name,
                    f"{target.floor:g}",
                    f"{target.expected:g}",
                    f"{math.ceil(images * asked.prevalence):,}",
                    f"{images:,}",
                ]
                for name, target, images in rows
            ],
            frozenset({1, 2, 3, 4}),
        ),
        Points(
            [
                "A share p of n images: n = ((z1 √(p0 (1 - p0)) + z2 √(p1 (1 - p1))) / (p1 - p0))², where p0 is the "
                f"floor, p1 what is expected, z1 = {first:.3f} and z2 = {second:.3f}. Sensitivity counts images with "
                f"the finding ({trials(PLAN.sensitivity, asked):,}), specificity those without.",
                "F1 = 2J / (1 + J), where J = TP / (TP + FP + FN) is a share of the images that are called or have "
                "the finding; the formula is used for J, and the number of all images follows from the prevalence "
                f"and from an expected sensitivity of {PLAN.sensitivity.expected:g}.",
                "AUROC: the least number with z1 SE(A0) + z2 SE(A1) ≤ A1 - A0, by the standard error of J. A. "
                "Hanley and B. J. McNeil, Radiology 1982, 143:29-36.",
                "The difference to the readers (criterion 2) has no number of its own: how model and readers err "
                "together is not known beforehand. Its interval is reported as it comes.",
            ]
        ),
        Words(
            f"The largest counts: {most:,}; with {percent(PLAN.unusable)} unusable, {whole:,} images of as many "
            "patients."
        ),
    ]


def _now(sources: Sources) -> list[Block]:
    if sources.report is None:
        return [Words(f"F1, AUROC and intervals: {NOT_MEASURED}; no evaluation report was given.")]
    rows = []
    for label in asked_of(sources):
        judged = sources.judged(label)
        called = judged.called if judged else None
        rows.append(
            [
                sources.card.display[label],
                f"{judged.positive} of {judged.images}" if judged else NOT_MEASURED,
                said(judged.auroc if judged else None),
                _against(called.f1 if called else None),
                _against(best_f1(judged)),
                f"{_all_called(judged.positive / judged.images):.3f}"
                if judged and judged.images
                else NOT_MEASURED,
            ]
        )
    chosen = _chosen_by_label(sources)
    found: list[Block] = [
        Table(
            f"Measured, beside the radiologists' published {RADIOLOGISTS.value:g}",
            [
                "finding",
                "positive",
                "AUROC",
                "F1 at the card's threshold",
                "largest F1 on the curve",
                "F1 of calling all",
            ],
            rows,
        ),
        Words(
            "The truth here is the labels of section 5 and not three radiologists; the share of positives is that "
            f"of these images{chosen}; the published figure is of pneumonia and had its own. So neither number says "
            "whether the model reads as radiologists do: the study planned above would. Calling the finding on "
            "every image has an F1, too: it is the last column. The largest F1 was found by trying every threshold "
            "on the same images, which flatters it; its interval counts images (Wilson's, of TP / (TP + FP + FN))."
        ),
    ]
    turned = [
        [sources.card.display[label], *(said(f1_at(judged.called, each)) for each in PREVALENCES)]
        for label in asked_of(sources)
        if (judged := sources.judged(label)) and judged.called
    ]
    if turned:
        turned.append(["calling it on every image", *(f"{_all_called(each):.3f}" for each in PREVALENCES)])
        found.append(
            Table(
                "What the same sensitivity and specificity at the card's threshold give as F1 where the finding is "
                "rarer or more frequent, by Bayes' rule; in brackets both intervals at their worst and at their best",
                ["finding", *(f"at {percent(each)}" for each in PREVALENCES)],
                turned,
            )
        )
    return found


def _all_called(prevalence: float) -> float:
    """F1 of calling every image: its recall is 1, its precision the prevalence."""
    return 2 * prevalence / (1 + prevalence)


def _against(found: Estimate | None) -> str:
    if found is None:
        return NOT_MEASURED
    target = RADIOLOGISTS.value
    where = "above" if found.low > target else "below" if found.high < target else "around"
    return f"{said(found)}: {where} {target:g}"


def _chosen_by_label(sources: Sources) -> str:
    words = " ".join([str(sources.tree["limits"]), *map(str, sources.table("data").values())])
    return ", which were chosen by label as the card says" if "chosen by label" in words else ""


def _figures(sources: Sources) -> list[Block]:
    return [*auroc_tables(sources), *_others(sources)] or [Words(f"Figures of the card: {NOT_KNOWN}.")]


def auroc_tables(sources: Sources) -> list[Table]:
    """The card's rows of AUROC, what they are of by where they were measured; the report's where the card has none."""
    rows = rows_of(sources.table("figures").get("rows"))
    if rows and all({"who", "of", "inside", "auroc"} <= row.keys() for row in rows):
        first = str(rows[0]["who"])
        mine = [row for row in rows if row["who"] == first]
        return [_of_one(mine, first, sources), *_floors(mine, [row for row in rows if row["who"] != first])]
    found = [table_of("Figures of the card", rows)] if rows else []
    report = sources.report
    if report:
        found.append(
            Table(
                "AUROC by the evaluation report, 95 % interval",
                ["finding", "positive", "AUROC", "above every floor"],
                [
                    [
                        sources.card.display[label],
                        f"{judged.positive} of {judged.images}",
                        said(judged.auroc),
                        {True: "yes", False: "not shown", None: NOT_MEASURED}[report.above_floors.get(label)],
                    ]
                    for label, judged in report.labels.items()
                ],
            )
        )
    else:
        found += _validated(sources)
    return found


def _validated(sources: Sources) -> list[Table]:
    """What a training run says of its validation images: all that a card without an evaluation has."""
    rows = [
        [sources.card.display[label], f"{area:.3f}"]
        for label in sources.card.labels
        if (area := number(sources.finding(label).get("validation_auroc"))) is not None
    ]
    caption = (
        "AUROC on the validation images, which chose the epoch and the thresholds: it flatters. No interval"
    )
    return [Table(caption, ["finding", "AUROC"], rows, frozenset({1}))] if rows else []


def _of_one(rows: Sequence[Tree], who: str, sources: Sources) -> Table:
    display = sources.card.display
    return Table(
        f"AUROC of {who}, with its 95 % interval; inside: all images, a view, or a collection of them",
        ["inside", "of", "AUROC", "positive", "images"],
        [
            [
                str(row["inside"]),
                display.get(str(row["of"]), str(row["of"])),
                _area(row),
                shown(row.get("positive")),
                shown(row.get("images")),
            ]
            for row in rows
        ],
        frozenset({2, 3, 4}),
    )


def _floors(mine: list[Tree], others: list[Tree]) -> list[Table]:
    """What the floors reach, and by how much the model is above them; a row what was measured where."""
    found = []
    whos = list(dict.fromkeys(str(row["who"]) for row in others))
    differences = [who for who in whos if " less " in who]
    for caption, shown_whos in (
        (
            "AUROC of the floors: what simple rules reach that do not read the picture",
            [w for w in whos if w not in differences],
        ),
        ("The model's AUROC less the floor's, on the same drawings of patients", differences),
    ):
        rows = [row for row in others if row["who"] in shown_whos]
        if not rows:
            continue
        cells = {(row["who"], row["of"], row["inside"]): row for row in rows}
        places = list(dict.fromkeys((row["of"], row["inside"]) for row in rows))
        own = {(row["of"], row["inside"]): row for row in mine}
        shown_own = shown_whos is not differences
        found.append(
            Table(
                caption,
                ["of", "inside", *(["the model"] if shown_own else []), *(_short(who) for who in shown_whos)],
                [
                    [
                        str(of),
                        str(inside),
                        *([_area(own.get((of, inside)), 2)] if shown_own else []),
                        *(_area(cells.get((who, of, inside)), 2 if shown_own else 3) for who in shown_whos),
                    ]
                    for of, inside in places
                ],
            )
        )
    return found


def _short(who: str) -> str:
    return who.rpartition("floor: ")[2]


def _area(row: Tree | None, digits: int = 3) -> str:
    value, low, high = (number((row or {}).get(key)) for key in ("auroc", "low", "high"))
    if value is None:
        return "-"
    return said(Estimate(value, math.nan if low is None else low, math.nan if high is None else high), digits)


def _others(sources: Sources) -> list[Block]:
    """Figures of the card that no section above has printed."""
    figures = sources.table("figures")
    return [
        table_of(key.replace("_", " ").capitalize(), rows)
        for key, value in figures.items()
        if key not in ("rows", "calibration", "scope") and (rows := rows_of(value))
    ]
