"""The text SR: a page that any viewer shows, however old, the line that matters most first (Basic Text SR).

What a person reads stands in a few TEXT items; the table of scores is one, an aligned line a finding, each ending in a
word, so that it can be read in any type and where line breaks are lost. Programs read the kind `sr`.
"""

from pydicom import Dataset

from node.report import basic_text, sentences
from node.report import findings as words
from node.report.basic_text import ALGORITHM, FINDING, PREVIOUS, text
from node.report.check import hold
from node.report.parts import COMMENT
from node.report.reading import InvalidResult, Report

SERIES_NUMBER = 9003
SERIES_DESCRIPTION = "Hilum AI findings (text)"


class TextReport:
    """Writes the text SR of a report; its only variant is the empty one."""

    name = "text-sr"
    each_image = False

    def write(self, report: Report, variant: str, image: int) -> Dataset:
        """The document, still without the patient, whom `report.make` puts in; raises InvalidResult."""
        if variant:
            raise InvalidResult(f"no text SR variant {variant!r}")
        return basic_text.document(report, self.name, SERIES_NUMBER, SERIES_DESCRIPTION, _page(report))

    def check(self, result: Dataset, report: Report, image: int) -> None:
        """The document, and in it the headline first, its limits and every score; raises InvalidResult."""
        basic_text.hold_document(result, report)
        texts = basic_text.texts(result)
        hold(texts[:1] == [sentences.headline(report)], "the headline does not come first")
        hold(words.RESEARCH_USE in texts, "it does not say that it is for research use")
        for number in range(len(report.readings)):
            hold(_table(report, number) in texts, "scores are missing")
        hold(all(line in texts for line in sentences.earlier(report)), "earlier results are missing")


def _page(report: Report) -> list[Dataset]:
    page = [text(FINDING, sentences.headline(report)), text(COMMENT, words.RESEARCH_USE)]
    if amended := sentences.amended(report):
        page.append(text(COMMENT, amended))
    page += [text(COMMENT, line) for line in sentences.unlike(report)]
    for number, reading in enumerate(report.readings):
        page.append(text(FINDING, _table(report, number)))
        if open_calls := words.unsettled(reading.findings, report.card):
            page.append(text(COMMENT, open_calls))
        page.append(basic_text.image(reading.identity))
    page += [text(COMMENT, words.calibration(report.card)), text(COMMENT, sentences.limits(report))]
    page.append(text(ALGORITHM, f"{sentences.model(report)}, weights {report.card.sha256}"))
    page += [text(PREVIOUS, line) for line in sentences.earlier(report)]
    return page


def _table(report: Report, image: int) -> str:
    """A heading and a line a finding; above the threshold is told by a word, not by a mark."""
    rows = sentences.rows(report, image)
    several = len(report.readings) > 1
    widest = max(len(row.name) for row in rows)
    lines = [f"{sentences.image_name(report, image)}, all scores:" if several else "All scores:"]
    for row in rows:
        where = "ABOVE" if row.above else "below"
        lines.append(f"{row.name:<{widest}}  {row.score}  ({where} {row.threshold})")
    return "\n".join(lines)
