"""Labels of the model -> coded concepts and the sentences that people read.

The codes stand in findings.toml. A label that is not there (a hospital's own model) gets a code of our own
scheme, made from the label, and the chest as its site: it is never left out and never given a foreign code.
"""

import hashlib
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from model.card import Card, Temperature
from model.classifier import Finding

LOCAL_SCHEME = "99HILUM"
RESEARCH_USE = "AI result for research use only. Not a diagnosis. Not verified by a physician."
MOST_DECIMALS = 6


class Code(NamedTuple):
    """A coded concept (PS3.3 8.8); `value` at most 16 characters, `meaning` at most 64, all ASCII."""

    value: str
    scheme: str
    meaning: str


CHEST = Code("816094009", "SCT", "Chest")


@dataclass(frozen=True)
class Concept:
    finding: Code
    site: Code


@cache
def _table() -> dict[str, Concept]:
    text = Path(__file__).with_name("findings.toml").read_text(encoding="utf-8")
    return {
        label: Concept(Code(*row["code"]), Code(*row["site"])) for label, row in tomllib.loads(text).items()
    }


def concept(label: str) -> Concept:
    """The coded concept of a label; of our own scheme where findings.toml has none."""
    return _table().get(label) or Concept(_local_code(label), CHEST)


def _local_code(label: str) -> Code:
    """Letters and digits of the label where 16 hold them, else the start of its hash."""
    plain = label.isascii() and re.sub(r"[^A-Z0-9]", "", label.upper())
    if not plain or len(plain) > 16:
        plain = hashlib.sha256(label.encode()).hexdigest()[:16].upper()
    meaning = re.sub(r"[^\x20-\x5b\x5d-\x7e]", "?", label)[:64].strip()
    return Code(plain, LOCAL_SCHEME, meaning or plain)


def ordered(findings: list[Finding]) -> list[Finding]:
    """Most important first: those above their threshold by score, then the others as the card lists them."""
    present = sorted((f for f in findings if f.present), key=lambda f: -f.score)
    return present + [f for f in findings if not f.present]


def name(finding: Finding, card: Card) -> str:
    """The words that a person reads for a label, in ASCII as every character set holds them."""
    words = card.display.get(finding.label, finding.label.replace("_", " "))
    return ascii_text(words)


def ascii_text(text: str) -> str:
    """`text` in printable ASCII; what is not becomes `?`. Backslashes too: in DICOM they part values."""
    return re.sub(r"[^\x20-\x5b\x5d-\x7e\n]", "?", text)


def numbers(finding: Finding, decimals: int = 2) -> tuple[str, str]:
    """Score and threshold as shown, with as many decimals as it takes to see which one is greater.

    0.4996 under a threshold of 0.5 must not read "0.50, below 0.50".
    """
    for places in range(decimals, MOST_DECIMALS + 1):
        score, threshold = f"{finding.score:.{places}f}", f"{finding.threshold:.{places}f}"
        if (float(score) >= float(threshold)) == finding.present:
            break
    return score, threshold


def unsettled(findings: list[Finding], card: Card) -> str:
    """One sentence: whose threshold lies within the score's range (`model.doubt`); empty where no one's does."""
    each = [
        f"{name(f, card)} {f.low:.3f} to {f.high:.3f} (threshold {f.threshold:.3f})"
        for f in ordered(findings)
        if f.is_unsettled
    ]
    if not each:
        return ""
    return f"Close calls (models that learnt from fewer of the patients disagree): {', '.join(each)}."


def calibration(card: Card) -> str:
    """One sentence: what a score says, and where it would say too much."""
    if not card.is_calibrated:
        return "Scores are uncalibrated: they order findings, they are no probabilities."
    shares = [card.prevalence[label] for label in card.labels]
    least, most = _percent(min(shares)), _percent(max(shares))
    where = f"{most} of the images" if least == most else f"{least} to {most} of the images, by finding"
    return f"Scores are calibrated for a place where a finding is in {where}: where it is rarer, its score is too high."


def calibration_of(finding: Finding, card: Card) -> str:
    """The same of one finding, as a parameter of the algorithm."""
    curve = card.calibrations.get(finding.label)
    if curve is None:
        return "none, uncalibrated score"
    method = "temperature" if isinstance(curve, Temperature) else "isotonic"
    return f"{method}, for a prevalence of {_percent(card.prevalence[finding.label])}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else "100 %"


def headline(findings: list[Finding], card: Card) -> str:
    """One sentence: what is above its threshold, or that nothing is."""
    present = [f"{name(f, card)} {numbers(f)[0]}" for f in ordered(findings) if f.present]
    return f"Findings above threshold: {', '.join(present)}." if present else "No finding above threshold."


def all_scores(findings: list[Finding], card: Card) -> str:
    """Every finding with its score and threshold, for those who see nothing but text."""
    each = [f"{name(f, card)} {numbers(f)[0]} ({numbers(f)[1]})" for f in ordered(findings)]
    return f"Scores, thresholds in brackets: {', '.join(each)}."
