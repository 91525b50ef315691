"""1. What the device is, for what and for whom, where it fails, and what its errors mean in numbers."""

from model import scope
from model.card import VGG16
from model.describe.document import Block, Facts, Heading, Points, Table, Words
from model.describe.figures import NOT_KNOWN, NOT_MEASURED, per_thousand, percent, rates, said, shown
from model.describe.layers import Layers
from model.describe.sources import Report, Sources, sentences
from model.evaluate.limits import FEW
from model.words import CHEST, FRONTAL

STATED = 0.05
"""The prevalence at which errors are counted where the report states none: an assumption, and said to be one."""
KINDS = ("view", "sex", "age", "collection")


def general(sources: Sources, network: Layers) -> list[Block]:
    return [
        Heading("1. General information", 1),
        Heading("1.1 Device description"),
        Words(device(sources, network)),
        Heading("1.2 Intended use statement"),
        Words(sources.card.intended_use),
        Heading("1.3 Indications for use"),
        _indications(sources),
        Heading("1.4 Device limitations"),
        Words("As the model's card states them:"),
        Points(sentences(str(sources.tree["limits"]))),
        Words("As measured, or not:"),
        Points([*_weak(sources), *_unmeasured()]),
        Heading("1.5 Clinical impact of performance"),
        *_impact(sources),
    ]


def device(sources: Sources, network: Layers) -> str:
    """In two sentences."""
    card = sources.card
    names = [card.display[label] for label in card.labels]
    kind = "a VGG16 convolutional network" if card.architecture == VGG16 else "an imported neural network"
    parameters = f" with {network.parameters:,} parameters" if network.parameters else ""
    findings = f"{len(names)} findings" if len(names) > 1 else f"one finding, {names[0]}"
    return (
        f"{card.name} {card.version} is software: {kind}{parameters} that reads one digital chest radiograph at "
        f"{card.size} x {card.size} pixels and gives a score from 0 to 1 for {findings}. A finding whose score is not "
        "below the threshold of the model's card is called, and stands in a preliminary, unverified result that goes "
        "to the PACS beside the image."
    )


def _indications(sources: Sources) -> Facts:
    card, policy = sources.card, scope.Policy()
    least = sources.table("data").get("min_age")
    return Facts(
        [
            (
                "Population",
                f"patients of {policy.min_age} years or more (a site's setting); trained on patients of "
                f"{shown(least) if least is not None else NOT_KNOWN} years or more",
            ),
            ("Ages it was judged on", _bands(sources.report)),
            ("Body part", f"chest ({', '.join(sorted(CHEST))} in the header)"),
            ("View", f"frontal ({', '.join(sorted(FRONTAL))} in the header)"),
            ("Modality", ", ".join(sorted(scope.MODALITIES))),
            ("Findings", ", ".join(card.display[label] for label in card.labels)),
            ("Read by", "a radiologist, who sees the image herself and decides; never by the patient"),
        ]
    )


def _bands(report: Report | None) -> str:
    if report is None or not report.parts.get("age"):
        return NOT_MEASURED
    return "; ".join(f"{band}: {part.images} images" for band, part in report.parts["age"].items())


def _weak(sources: Sources) -> list[str]:
    """What the report itself shows to be weak."""
    report, display = sources.report, sources.card.display
    if report is None:
        return [
            f"Where the model fails among views, sexes, ages and sources of images: {NOT_MEASURED}; no evaluation "
            "report was given."
        ]
    found = []
    below = [display[label] for label, above in report.above_floors.items() if not above]
    if below:
        found.append(
            "Not shown to be better, with the whole interval, than every simple rule that does not read the picture "
            f"(its thumbnail, age, sex and view, where it comes from): {', '.join(below)}."
        )
    few = [f"{display[n]} ({x.positive})" for n, x in report.labels.items() if x.positive < FEW]
    if few:
        found.append(
            f"Judged on fewer than {FEW} images with the finding, so that little is known: {', '.join(few)}."
        )
    for kind in KINDS:
        measured = [(part.mean, value) for value, part in report.parts.get(kind, {}).items() if part.mean]
        if len(measured) > 1:
            mean, worst = min(measured, key=lambda pair: pair[0].value)
            found.append(
                f"Weakest by {kind}: {worst}, with a mean AUROC of {said(mean)} over the findings that could be judged "
                f"there ({report.parts[kind][worst].images} images)."
            )
    return found


def _unmeasured() -> list[str]:
    return [
        f"Comorbidities that confuse it, devices and lines in the picture, poor positioning: {NOT_MEASURED}.",
        "Hardware: runs on a CPU; a GPU is used where there is one, and is not needed. What it costs in time and "
        "memory is measured per machine and stands in no card.",
    ]


def _impact(sources: Sources) -> list[Block]:
    card = sources.card
    prevalence = STATED
    rows = []
    false_calls, counted = 0.0, 0
    for label in card.labels:
        sensitivity, specificity = rates(sources, label)
        rows.append(
            [
                card.display[label],
                said(sensitivity, 2),
                said(specificity, 2),
                per_thousand(sensitivity, prevalence),
                per_thousand(sensitivity, prevalence, missing=True),
                per_thousand(specificity, 1 - prevalence, missing=True),
            ]
        )
        if specificity is not None:
            false_calls += 1 - specificity.value
            counted += 1
    found: list[Block] = [
        Words(
            "A false positive is a finding called on an image without it: a reader may look longer, look for what is "
            "not there, or be led to a further examination. A false negative is a finding that is there and is not "
            "called: a reader who trusts the result may read less closely. Nothing here claims a benefit or a harm in "
            "care; it says how often each would happen."
        ),
        Table(
            f"At the card's thresholds; of 1,000 images at a stated prevalence of {percent(prevalence)} of each "
            "finding (an assumption: it is the site's to measure), taking sensitivity and specificity for the same "
            "there",
            [
                "finding",
                "sensitivity",
                "specificity",
                "there and called",
                "there, not called",
                "called, not there",
            ],
            rows,
            frozenset({1, 2, 3, 4, 5}),
        ),
    ]
    if counted > 1:
        found.append(
            Words(
                f"All {counted} findings whose specificity was measured together: {false_calls:.2f} false calls are to "
                "be expected on an image that has none of them (the sum of the false positive rates)."
            )
        )
    if sources.report is None:
        found.append(
            Words(
                "No evaluation report was given: rates without an interval are the card's own, and no interval was "
                "measured."
            )
        )
    return found
