"""Why there is no result: a short Basic Text SR for an image that was not analyzed.

Without it "no AI result" may be taken for "the AI found nothing". It says that it means nothing.
"""

from pydicom import Dataset

from node.report import basic_text, sentences
from node.report import findings as words
from node.report.basic_text import ALGORITHM, FINDING, text
from node.report.check import hold
from node.report.parts import COMMENT
from node.report.reading import InvalidResult, Report

SERIES_NUMBER = 9007
SERIES_DESCRIPTION = "Hilum AI: not analyzed"


class NotAnalyzed:
    """Writes the only kind that a report with a reason has; its only variant is the empty one."""

    name = "not-analyzed"
    each_image = False

    def write(self, report: Report, variant: str, image: int) -> Dataset:
        """The document, still without the patient, whom `report.make` puts in; raises InvalidResult."""
        if variant:
            raise InvalidResult(f"no variant {variant!r} of not-analyzed")
        content = [text(FINDING, _headline(report)), text(COMMENT, _meaning(report))]
        content += [basic_text.image(reading.identity) for reading in report.readings]
        content.append(text(ALGORITHM, f"{sentences.model(report)}, weights {report.card.sha256}"))
        return basic_text.document(report, self.name, SERIES_NUMBER, SERIES_DESCRIPTION, content)

    def check(self, result: Dataset, report: Report, image: int) -> None:
        """The document, and in it the reason first and what it does not mean; raises InvalidResult."""
        basic_text.hold_document(result, report)
        texts = basic_text.texts(result)
        hold(texts[:2] == [_headline(report), _meaning(report)], "it does not say why, or not what it means")


def _headline(report: Report) -> str:
    reason = words.ascii_text(" ".join(report.reason.split())).rstrip(".")
    return f"Not analyzed: {reason}."


def _meaning(report: Report) -> str:
    which = "this image" if len(report.readings) == 1 else "these images"
    return (
        f"There is no AI statement about {which}. That none is there does not mean that nothing was found. "
        f"Research use only, not a diagnosis."
    )
