"""The way of an image through the algorithm, step by step, as the code takes it: a flowchart."""

from collections.abc import Sequence
from dataclasses import dataclass

from model import network, scope
from model.card import VGG16, Card
from model.describe.drawing import (
    ACCENT,
    FILL,
    GREY,
    INK,
    Box,
    Drawable,
    Letters,
    Picture,
    arrow,
    wrapped,
)

WIDTH, MAIN, SIDE, GAP = 500.0, 300.0, 150.0, 15.0
"""Of the picture, the boxes of the way, those beside it, and between two of them."""
TITLE, BODY, LEAD, EDGE = 8.0, 7.0, 9.6, 7.0


@dataclass(frozen=True)
class Step:
    title: str
    says: str
    beside: str = ""
    """What becomes of an image that goes no further than this."""


def steps(card: Card) -> list[Step]:
    """What happens to an image, in order; the scope rules are counted from the code."""
    shape = f"{card.size} x {card.size} x {card.channels}"
    found = [
        Step("A DICOM object is received and kept", "C-STORE, or a file; nothing of it is changed"),
        Step(
            f"Kind of object: {_rules(scope.STORED_ONLY)}",
            _names(scope.STORED_ONLY),
            "stored, no job",
        ),
        Step(
            f"Header: {_rules(scope.HEADER)}",
            _names(scope.HEADER),
            "skipped, with the reason in words",
        ),
        Step("Pixels are decoded", "windowed, upright, bone bright", "parked: can't be decoded"),
        Step(
            f"Decoded picture: {_rules(scope.PICTURE)}",
            _names(scope.PICTURE),
            "skipped, with the reason in words",
        ),
        Step("The network's input is made", f"stretched to {shape}, scaled and centered by the card"),
        Step("The network", _network(card)),
    ]
    found.append(
        Step(
            f"Looks, learned: {_rules(scope.LOOKS)}",
            f"{_names(scope.LOOKS)}: {_guard(card)}",
            "skipped or flagged, as the site chose",
        )
    )
    if card.is_calibrated:
        found.append(Step("Calibration", "from the network's output to a share of images, a curve a finding"))
    found += [
        Step(
            "Threshold",
            "a finding is called where its score is not below the card's threshold",
        ),
        Step("Result", "a preliminary, unverified report for a radiologist, who sees the image herself"),
    ]
    return found


def _rules(rules: Sequence[scope.Rule]) -> str:
    return f"{len(rules)} rule{'' if len(rules) == 1 else 's'}"


def _guard(card: Card) -> str:
    if card.scope:
        return "does the network's own view of it resemble that of the training images?"
    return "this folder has no learned check of its own; the node asks the model that comes with Hilum, if that has one"


def _names(rules: Sequence[scope.Rule]) -> str:
    return ", ".join(rule.name for rule in rules)


def _network(card: Card) -> str:
    count = f"{len(card.labels)} score{'s' if len(card.labels) > 1 else ''} from 0 to 1"
    if card.architecture == VGG16:
        features = network.carried_shapes(card.size, card.pools, network.HEAD, card.head)[0][0]
        return f"VGG16's convolutions, {features:,} features, {count}"
    return f"as imported: {count}"


def picture(card: Card) -> Picture:
    """The steps from top to bottom, what leaves the way at the right."""
    shapes: list[Drawable] = []
    y, taken = 1.0, steps(card)
    for number, step in enumerate(taken):
        says = wrapped(step.says, MAIN - 2 * EDGE, BODY)
        height = EDGE + TITLE + 3 + LEAD * len(says) + EDGE - 2
        is_end = number in (0, len(taken) - 1)
        shapes.append(Box(1, y, MAIN, height, FILL if is_end else "#ffffff", ACCENT if is_end else INK))
        shapes.append(
            Letters(1 + EDGE, y + EDGE + TITLE - 1, f"{number + 1}. {step.title}", TITLE, is_bold=True)
        )
        for line, words in enumerate(says, 1):
            shapes.append(Letters(1 + EDGE, y + EDGE + TITLE + 2 + LEAD * line - 2, words, BODY))
        if step.beside:
            shapes += _beside(step.beside, y + height / 2)
        if number + 1 < len(taken):
            shapes += arrow((1 + MAIN / 2, y + height), (1 + MAIN / 2, y + height + GAP))
        y += height + GAP
    says_all = ". ".join(
        f"{n}. {step.title}: {step.says}" + (f" (else {step.beside})" if step.beside else "")
        for n, step in enumerate(taken, 1)
    )
    return Picture(WIDTH, y - GAP + 1, shapes, says_all)


def _beside(text: str, middle: float) -> list[Drawable]:
    x = WIDTH - SIDE - 1
    lines = wrapped(text, SIDE - 2 * EDGE, BODY)
    height = LEAD * len(lines) + EDGE
    top = middle - height / 2
    found: list[Drawable] = [
        *arrow((1 + MAIN, middle), (x, middle), GREY),
        Box(x, top, SIDE, height, color=GREY, is_dashed=True),
    ]
    for number, line in enumerate(lines, 1):
        found.append(Letters(x + EDGE, top + EDGE / 2 + LEAD * number - 2.6, line, BODY, color="#444444"))
    return found


def mermaid(card: Card) -> str:
    """The same for Markdown."""
    lines, taken = ["flowchart TD"], steps(card)
    for number, step in enumerate(taken, 1):
        lines.append(f'    s{number}["{_quoted(f"{number}. {step.title}")}<br/>{_quoted(step.says)}"]')
        if step.beside:
            lines.append(f'    s{number} -.-> e{number}["{_quoted(step.beside)}"]')
    lines.append("    " + " --> ".join(f"s{number}" for number in range(1, len(taken) + 1)))
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return text.replace('"', "#quot;")
