"""What a report says to a person, in sentences and rows: the same words in every kind that people read. ASCII."""

import re
from typing import NamedTuple

from model.header import text
from node.report import findings as words
from node.report.reading import Earlier, Reading, Report

WHERE_FROM = "where the score comes from, not an outline of disease"
"""Stands beside everything that marks a place."""
NOT_FOR = "AI result, research use, not for diagnosis. Not verified by a physician."
"""The short form, for pictures and pages; a document says `findings.RESEARCH_USE`."""
VIEWS = {"PA", "AP"}


class Row(NamedTuple):
    """One finding as a table shows it."""

    label: str
    name: str
    score: str
    threshold: str
    above: bool


def rows(report: Report, image: int) -> list[Row]:
    """All findings of an image, most important first."""
    findings = words.ordered(report.readings[image].findings)
    return [Row(f.label, words.name(f, report.card), *words.numbers(f), f.present) for f in findings]


def headline(report: Report) -> str:
    """The line to be read first: what is above its threshold, in which image where there are several."""
    if len(report.readings) == 1:
        return words.headline(report.first.findings, report.card)
    found = []
    for image in range(len(report.readings)):
        above = [f"{row.name} {row.score}" for row in rows(report, image) if row.above]
        found.append(f"image {image + 1}: {', '.join(above) or 'none'}")
    if any(finding.present for reading in report.readings for finding in reading.findings):
        return f"Findings above threshold in {'; in '.join(found)}."
    return f"No finding above threshold in any of {len(found)} images."


def image_name(report: Report, image: int) -> str:
    """How a person finds the image in the study: `Image 2 (series 1, image 3, PA)`.

    From the source's header only plain numbers and two view codes are shown: nothing there can name a patient.
    """
    source = report.readings[image].source
    told = []
    for what, keyword in (("series", "SeriesNumber"), ("image", "InstanceNumber")):
        number = text(source, keyword)
        if re.fullmatch(r"[0-9]{1,12}", number) and number.isascii():
            told.append(f"{what} {int(number)}")
    if (view := text(source, "ViewPosition")) in VIEWS:
        told.append(view)
    return f"Image {image + 1}" + (f" ({', '.join(told)})" if told else "")


def model(report: Report) -> str:
    return f"{words.ascii_text(report.card.name)} {words.ascii_text(report.card.version)}"


def amended(report: Report) -> str:
    """Empty for a first report."""
    return f"Report revision {report.revision}, replaces the earlier one." if report.revision > 1 else ""


def unlike(report: Report) -> list[str]:
    """A sentence for each image that looks unlike what the model was made for; where there are several, which."""
    several = len(report.readings) > 1
    return [
        (f"{image_name(report, image)}. " if several else "") + words.ascii_text(reading.unlike)
        for image, reading in enumerate(report.readings)
        if reading.unlike
    ]


def limits(report: Report) -> str:
    return f"Limits: {words.ascii_text(' '.join(report.card.limits.split()))}"


def earlier(report: Report) -> list[str]:
    """A line for each earlier result of the patient, newest first."""
    return [_then(report, one) for one in report.earlier]


def _then(report: Report, then: Earlier) -> str:
    """When, what was above its threshold then, and the same finding's score now where it may be compared."""
    when = report.local(then.analyzed_at).strftime("%Y-%m-%d %H:%M")
    if then.study == report.identity.study:
        when += " (this study)"
    comparable = then.model == report.card.sha256
    now = _highest(report.readings) if comparable else {}
    told = []
    for label, score, above in sorted(then.findings, key=lambda f: -f[1]):
        if above:
            today = f" (now {now[label][0]:.2f})" if label in now else ""
            told.append(f"{_named(report, label)} {score:.2f}{today}")
    line = (
        f"{when}: findings above threshold: {', '.join(told)}." if told else f"{when}: none above threshold."
    )
    if not comparable:
        return f"{line} By another model: its scores can't be compared with today's."
    new = [
        f"{_named(report, label)} {score:.2f} (now {now[label][0]:.2f})"
        for label, score, above in sorted(then.findings, key=lambda f: -now.get(f[0], (0.0, False))[0])
        if not above and now.get(label, (0.0, False))[1]
    ]
    return line + (f" Below threshold then, above it now: {', '.join(new)}." if new else "")


def _highest(readings: tuple[Reading, ...]) -> dict[str, tuple[float, bool]]:
    """Label -> its highest score in these images, and whether that is above the threshold."""
    highest: dict[str, tuple[float, bool]] = {}
    for reading in readings:
        for finding in reading.findings:
            if finding.label not in highest or finding.score > highest[finding.label][0]:
                highest[finding.label] = (finding.score, finding.present)
    return highest


def _named(report: Report, label: str) -> str:
    return words.ascii_text(report.card.display.get(label, label.replace("_", " ")))
