"""The model card: one page for whoever is about to use the model (after Mitchell et al., Model Cards, 2019)."""

from model.card import VGG16
from model.describe.design import preprocessing
from model.describe.document import Block, Document, Facts, Heading, Points, Table, Words
from model.describe.figures import (
    NOT_KNOWN,
    NOT_MEASURED,
    facts_of,
    percent,
    rates,
    said,
    tables_of,
)
from model.describe.general import device
from model.describe.layers import Layers
from model.describe.sources import Sources, sentences
from model.describe.validation import auroc_tables


def model_card(sources: Sources, network: Layers) -> Document:
    card = sources.card
    blocks: list[Block] = [
        Words(device(sources, network)),
        _details(sources, network),
        Heading("For what", 1),
        Words(card.intended_use),
        Heading("Not for what", 1),
        Points(_not_for(sources)),
        Heading("Input", 1),
        Words(
            "One frontal chest radiograph as DICOM (CR, DX or a Secondary Capture that says so), or a PNG or JPEG "
            "whose view and age somebody states. What is done to it:"
        ),
        Points(preprocessing(card), is_numbered=True),
        Heading("Findings", 1),
        _findings(sources),
        Words(f"Thresholds: {card.rule}"),
        Heading("Calibration", 1),
        *_calibration(sources),
        Heading("Figures", 1),
        *_figures(sources),
        Heading("Scope", 1),
        *_scope(sources),
        Heading("Training data", 1),
        *_data(sources),
        Heading("Limits", 1),
        Points(sentences(str(sources.tree["limits"]))),
        Heading("Credits and licences", 1),
        *_credits(sources),
    ]
    running = (
        "Made from the model's card and its evaluation report. What is not known is said to be not known."
    )
    return Document(f"Model card: {card.name} {card.version}", running, blocks, has_contents=False)


def _details(sources: Sources, network: Layers) -> Facts:
    card = sources.card
    return Facts(
        [
            ("Name and version", f"{card.name} {card.version}"),
            ("Architecture", "VGG16" if card.architecture == VGG16 else "imported"),
            ("Parameters", NOT_KNOWN if network.parameters is None else f"{network.parameters:,}"),
            ("Weights", f"{card.weights}, {card.sha256}"),
        ]
    )


def _not_for(sources: Sources) -> list[str]:
    """The sentences of the intended use that say what it is not, and what holds for every model here."""
    said_no = [
        each
        for each in sentences(str(sources.tree["intended_use"]))
        if each.lower().startswith(("not ", "no "))
    ]
    return [
        *said_no,
        "No result without a radiologist: each is preliminary and unverified. A low score rules nothing out.",
        "No lateral views, no other body parts, nobody below the age that the site sets: such images are skipped.",
    ]


def _findings(sources: Sources) -> Table:
    card = sources.card
    rows = []
    for label in card.labels:
        sensitivity, specificity = rates(sources, label)
        prevalence = card.prevalence.get(label)
        judged = sources.judged(label)
        rows.append(
            [
                card.display[label],
                f"{card.thresholds[label]:.4g}",
                percent(prevalence) if prevalence is not None else NOT_KNOWN,
                said(judged.auroc) if judged else NOT_MEASURED,
                said(sensitivity, 2),
                said(specificity, 2),
            ]
        )
    return Table(
        "A finding is called where its score is not below the threshold. Prevalence: the share of positives for "
        "which the score holds. AUROC, sensitivity and specificity with 95 % intervals, by the evaluation report; "
        "without an interval: by the card",
        ["finding", "threshold", "prevalence", "AUROC", "sensitivity", "specificity"],
        rows,
        frozenset({1, 2}),
    )


def _calibration(sources: Sources) -> list[Block]:
    card, report = sources.card, sources.report
    found: list[Block] = []
    if card.is_calibrated:
        found.append(Words(card.calibrated_how))
    else:
        found.append(
            Words("The card has no calibration: a score is the network's output and no probability.")
        )
    if report and report.pooled_ece:
        chance = report.pooled_ece_by_chance
        by_chance = "" if chance is None else f"; {chance:.3f} would be there by chance"
        found.append(
            Words(f"Expected calibration error of all findings pooled: {said(report.pooled_ece)}{by_chance}.")
        )
    found += tables_of(sources.table("calibration"), {"rows": "How far scores are from shares"})
    if rows := sources.table("figures").get("calibration"):
        found += tables_of({"rows": rows}, {"rows": "How far scores are from shares"})
    return found


def _figures(sources: Sources) -> list[Block]:
    found: list[Block] = [*auroc_tables(sources)]
    if not found:
        found.append(Words(f"AUROC and floors: {NOT_MEASURED}."))
    if sources.report:
        found.append(Words("What may not be concluded:"))
        found.append(Points(sources.report.limits))
    return found


def _scope(sources: Sources) -> list[Block]:
    found: list[Block] = [
        Words("Which images get a result is decided by the rules that the description lists, and:"),
    ]
    told = sources.table("scope")
    if not sources.card.scope:
        found[0] = Words(
            "Which images get a result is decided by the rules that the description lists. This folder has no "
            "learned check of its own."
        )
        return found
    rows = sources.table("figures").get("scope")
    return [
        *found,
        facts_of(told),
        *tables_of(told, {"rows": "What the learned check stops"}),
        *tables_of({"rows": rows} if rows else {}, {"rows": "What the learned check stops"}),
    ]


def _data(sources: Sources) -> list[Block]:
    data = sources.table("data")
    if not data:
        return [Words(f"Images that trained it, and their labels: {NOT_KNOWN}.")]
    return [facts_of(data)]


def _credits(sources: Sources) -> list[Block]:
    found = sources.table("credits")
    licence = sources.table("weights").get("licence")
    blocks: list[Block] = [facts_of(found)] if found else [Words(f"Credits: {NOT_KNOWN}.")]
    blocks.append(Words(f"Licence of the weights: {licence or NOT_KNOWN}."))
    return blocks
