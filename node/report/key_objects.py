"""The key object selection: which images of the study have a finding above its threshold (PS3.16 TID 2010).

It flags images and says nothing of places, so it is written for triage as for marks; where no image is to be flagged
there is none.
"""

from pydicom import Dataset

from node.report import findings as words
from node.report import sentences
from node.report.check import hold, present
from node.report.parts import bare, coded, described, evidence, named, observer
from node.report.reading import (
    InvalidResult,
    NothingToSay,
    Reading,
    Report,
    result_uid,
)

SERIES_NUMBER = 9005
SERIES_DESCRIPTION = "Hilum AI findings (key images)"
OF_INTEREST = words.Code("113000", "DCM", "Of Interest")

_IN_SELECTION = [
    "ValueType",
    "ConceptNameCodeSequence",
    "ContentTemplateSequence",
    "ContentSequence",
    "CurrentRequestedProcedureEvidenceSequence",
]


class KeyObjects:
    """Writes the selection of a report; its only variant is the empty one."""

    name = "ko"
    each_image = False

    def write(self, report: Report, variant: str, image: int) -> Dataset:
        """The selection, still without the patient, whom `report.make` puts in.

        Raises NothingToSay where no image has a finding above its threshold; InvalidResult.
        """
        import highdicom.ko as hd

        if variant:
            raise InvalidResult(f"no variant {variant!r} of ko")
        images = [bare(reading.identity) for reading in _flagged(report)]
        if not images:
            raise NothingToSay
        for source in images:
            source.Rows = source.Columns = 1  # by these highdicom knows an image; it writes neither
        instance = result_uid(report, self.name, variant)
        selection: Dataset = hd.KeyObjectSelectionDocument(
            evidence=images,
            content=hd.KeyObjectSelection(
                document_title=coded(OF_INTEREST),
                referenced_objects=images,
                observer_device_context=observer(report.card),
                description=_description(report),
            ),
            **described(report, instance, SERIES_NUMBER, SERIES_DESCRIPTION),
        )
        for item in selection.ContentSequence:
            if item.ValueType == "IMAGE":
                # TID 2010: the references bear no name
                del item.ConceptNameCodeSequence
        return selection

    def check(self, result: Dataset, report: Report, image: int) -> None:
        """Exactly the images that have a finding above its threshold, and words on its limits; raises InvalidResult."""
        present(result, _IN_SELECTION)
        flagged = [reading.identity for reading in _flagged(report)]
        hold(evidence(result) == sorted(map(named, flagged)), "the evidence is not what is flagged")
        references = [i.ReferencedSOPSequence[0] for i in result.ContentSequence if i.ValueType == "IMAGE"]
        hold(
            [r.ReferencedSOPInstanceUID for r in references] == [i.sop_instance for i in flagged],
            "the images are not those that are flagged",
        )
        texts = [item.TextValue for item in result.ContentSequence if item.ValueType == "TEXT"]
        hold(_description(report) in texts, "it does not say why, or what it is not for")


def _flagged(report: Report) -> list[Reading]:
    return [reading for reading in report.readings if any(f.present for f in reading.findings)]


def _description(report: Report) -> str:
    return " ".join([sentences.headline(report), words.RESEARCH_USE, *sentences.unlike(report)])
