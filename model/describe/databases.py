"""4. and 5. The images that trained and judged the model, and where their labels come from."""

import re

from model.describe.document import Block, Heading, Points, Table, Words
from model.describe.figures import NOT_KNOWN, NOT_MEASURED, facts_of, percent, said, tables_of
from model.describe.sources import Part, Report, Sources, number, sentences

KINDS = {"view": "View", "sex": "Sex", "age": "Age in years", "collection": "Collection"}
OF_LABELS = re.compile(
    r"label|radiolog|text-mined|ground truth|annotat|\bread\b|reading|report", re.IGNORECASE
)
"""A sentence with one of these words says where the truth comes from."""


def databases(sources: Sources) -> list[Block]:
    return [
        Heading("4. Databases", 1),
        Heading("4.1 Training and validation sets"),
        *_training(sources),
        Heading("4.2 The images that the figures are measured on"),
        *_judged(sources),
        Heading("5. Ground truth", 1),
        *_truth(sources),
    ]


def _training(sources: Sources) -> list[Block]:
    data = sources.table("data")
    found: list[Block] = []
    if data:
        found += [facts_of(data), *tables_of(data, {})]
    else:
        found.append(Words(f"Training and validation images: {NOT_KNOWN}; the card has no [data]."))
    rows = []
    for label in sources.card.labels:
        finding = sources.finding(label)
        known, positive = number(finding.get("training_known")), number(finding.get("training_positive"))
        if known is None or positive is None:
            continue
        share = percent(positive / known) if known else NOT_KNOWN
        rows.append([sources.card.display[label], f"{known:.0f}", f"{positive:.0f}", share])
    if rows:
        found.append(
            Table(
                "Labels of the training images",
                ["finding", "images where it is known", "positive", "share"],
                rows,
                frozenset({1, 2, 3}),
            )
        )
    return found


def _judged(sources: Sources) -> list[Block]:
    report = sources.report
    if report is None:
        return [
            Words(f"Images, patients, views, sexes and ages: {NOT_MEASURED}; no evaluation report was given.")
        ]
    unreadable = f" {report.unreadable} more could not be read." if report.unreadable else ""
    shown_labels = _most(report)
    display = sources.card.display
    rows = [
        _row(KINDS[kind], value, part, shown_labels)
        for kind in KINDS
        for value, part in report.parts.get(kind, {}).items()
    ]
    positives = [
        [
            display[label],
            str(judged.images),
            str(judged.positive),
            percent(judged.positive / max(judged.images, 1)),
        ]
        for label, judged in report.labels.items()
    ]
    return [
        Words(
            f"{report.images} images of {report.patients} patients: split {report.split} of "
            f"{report.table}.{unreadable} Intervals are 95 %, from {report.resamples} drawings of patients with all "
            "their images."
        ),
        Table(
            "Who they are; positives where the finding could be judged in that part (a dash: too few)",
            [
                "by",
                "part",
                "images",
                "patients",
                *(f"{display[label]}, positive" for label in shown_labels),
                "mean AUROC",
            ],
            rows,
            frozenset(range(2, 5 + len(shown_labels))),
        ),
        Table(
            "Labels of these images",
            ["finding", "images where it is known", "positive", "share"],
            positives,
            frozenset({1, 2, 3}),
        ),
        Words("What may not be concluded from them:"),
        Points(report.limits),
    ]


def _most(report: Report) -> list[str]:
    """Two labels whose positives are counted in each part."""
    from model.evaluate.report import PREFERRED

    first = [label for label in PREFERRED if label in report.labels]
    others = sorted((n for n in report.labels if n not in first), key=lambda n: -report.labels[n].positive)
    return [*first, *others][:2]


def _row(kind: str, value: str, part: Part, labels: list[str]) -> list[str]:
    counted = [
        f"{part.labels[label][2]} of {part.labels[label][1]}" if label in part.labels else "-"
        for label in labels
    ]
    return [kind, value, str(part.images), str(part.patients), *counted, said(part.mean)]


def _truth(sources: Sources) -> list[Block]:
    told = [f"{key}: {value}" for key, value in sources.table("ground_truth").items()]
    told += [each for each in sentences(str(sources.tree["limits"])) if OF_LABELS.search(each)]
    data = sources.table("data")
    told += [
        each
        for key in ("source", "unknown", "traps")
        for each in sentences(str(data.get(key, "")))
        if OF_LABELS.search(each)
    ]
    if not told:
        return [
            Words(
                f"How the labels of the training images came about, and how often they are wrong: {NOT_KNOWN}; the "
                "card says nothing of it."
            )
        ]
    blocks: list[Block] = [
        Words(
            "What the card says of its labels, their makers and their errors. Figures of this description are measured "
            "against these labels and share their errors; a reference standard made for validation is section 6.2."
        ),
        Points(list(dict.fromkeys(told))),
    ]
    credits_ = sources.table("credits")
    if credits_:
        blocks += [Words("Sources of pictures and labels, as the card credits them:"), facts_of(credits_)]
    return blocks
