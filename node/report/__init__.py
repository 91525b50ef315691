"""Scores -> objects that go back to the PACS, checked.

`make` is the way in. A writer makes one kind of object out of a Report and knows nothing of the patient; what all
DICOM results share (the patient, our marks, the times) is put in here, once, and then the object is encoded, once.
What is no DICOM object is text, and its writer writes all of it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from pydicom import Dataset, config
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian

from node.report.check import check
from node.report.encode import encoded
from node.report.fhir import FhirBundle
from node.report.key_objects import KeyObjects
from node.report.not_analyzed import NotAnalyzed
from node.report.oru import OruMessage
from node.report.pdf import Page
from node.report.plain import PlainJson
from node.report.presentation_state import PresentationState
from node.report.reading import (
    MANUFACTURER,
    InvalidResult,
    NothingToSay,
    Reading,
    Report,
    result_uid,
    software_version,
    uid,
)
from node.report.secondary_capture import SecondaryCapture
from node.report.sr import StructuredReport
from node.report.text_sr import TextReport
from node.wire.kinds import kind_of

__all__ = [
    "PRIVATE_CREATOR",
    "TEXT_WRITERS",
    "WRITERS",
    "InvalidResult",
    "NothingToSay",
    "Reading",
    "Report",
    "Result",
    "ResultWriter",
    "TextWriter",
    "make",
]

PRIVATE_CREATOR = "HILUM"
PRIVATE_GROUP = 0x4849
"""`HI` in ASCII, and odd."""


class ResultWriter(Protocol):
    """One kind of result."""

    name: str
    each_image: bool
    """One object for each image of a report; otherwise one for all of them."""

    def write(self, report: Report, variant: str, image: int) -> Dataset:
        """A data set without the patient; all its text is ASCII. Raises InvalidResult, NothingToSay.

        `image`: which of the report's readings; 0 where the kind is not made for each image.
        """

    def check(self, result: Dataset, report: Report, image: int) -> None:
        """`result` was read back from its bytes. Raises InvalidResult where it is not what `write` promises."""


class TextWriter(Protocol):
    """One kind of result that is no DICOM object: one text for the whole report."""

    name: str

    def write(self, report: Report) -> bytes:
        """All of it, the patient too. Raises InvalidResult."""

    def check(self, data: bytes, report: Report) -> None:
        """Reads `data` back. Raises InvalidResult where it is not what `write` promises."""


WRITERS: Mapping[str, ResultWriter] = MappingProxyType(
    {
        w.name: w
        for w in (
            StructuredReport(),
            SecondaryCapture(),
            TextReport(),
            Page(),
            NotAnalyzed(),
            PresentationState(),
            KeyObjects(),
        )
    }
)

TEXT_WRITERS: Mapping[str, TextWriter] = MappingProxyType(
    {w.name: w for w in (PlainJson(), FhirBundle(), OruMessage())}
)


@dataclass(frozen=True)
class Result:
    """One object or text, encoded once and checked: these bytes are what is stored, sent and hashed."""

    writer: str
    variant: str
    """As asked for; of a report's second image and further ones with `#2`, … behind."""
    sop_class: str
    """Empty: it is no DICOM object."""
    sop_instance: str
    """A text's UID too: nothing else has it."""
    data: bytes
    """The whole Part 10 file, Explicit VR Little Endian; or the text."""
    content_hash: str
    """`sha256:…` of the data set bytes in it; of a text, of all its bytes."""
    notes: tuple[str, ...]
    """What of the source could not be passed on as it was; names attributes, no values."""

    @property
    def media(self) -> str:
        """Its media type, `application/dicom`, `application/fhir+json`, …"""
        return kind_of(self.writer).media

    @property
    def suffix(self) -> str:
        """How its file's name ends, `.dcm`, `.fhir.json`, …"""
        return kind_of(self.writer).suffix


def make(name: str, report: Report, variant: str = "") -> list[Result]:
    """What the writer of this name makes of `report`, one result or one for each image; equal reports give equal bytes.

    Nothing, where the writer has nothing to say: no key objects without a finding above its threshold.
    Raises InvalidResult where a result would not be one that may leave.
    """
    if name in TEXT_WRITERS:
        return [_written(name, report)]
    made = []
    for image in range(len(report.readings)) if WRITERS[name].each_image else range(1):
        with suppress(NothingToSay):
            made.append(_made(name, report, variant, image))
    return made


def _written(name: str, report: Report) -> Result:
    with config.disable_value_validation():
        _hold_reportable(name, report)
        writer = TEXT_WRITERS[name]
        data = writer.write(report)
        writer.check(data, report)
        return Result(
            writer=name,
            variant="",
            sop_class="",
            sop_instance=result_uid(report, name, ""),
            data=data,
            content_hash="sha256:" + hashlib.sha256(data).hexdigest(),
            notes=report.identity.notes,
        )


def _made(name: str, report: Report, variant: str, image: int) -> Result:
    writer, reading = WRITERS[name], report.readings[image]
    # pydicom would warn of each odd value of the source, and print it; `identity` judges them itself
    with config.disable_value_validation():
        _hold_reportable(name, report)
        dataset = Dataset()
        dataset.update(writer.write(report, variant, image))
        of = [reading] if writer.each_image else report.readings
        _mark_as_ours(dataset, report, of)
        _date(dataset, report)
        reading.identity.put(dataset)
        body = encoded(dataset)
    result = Result(
        writer=name,
        variant=variant if image == 0 else f"{variant}#{image + 1}",
        sop_class=str(dataset.SOPClassUID),
        sop_instance=str(dataset.SOPInstanceUID),
        data=_file_head(dataset) + body,
        content_hash="sha256:" + hashlib.sha256(body).hexdigest(),
        notes=reading.identity.notes,
    )
    check(result.data, result.content_hash, report, image, lambda back: writer.check(back, report, image))
    return result


def _hold_reportable(name: str, report: Report) -> None:
    if bool(report.reason) != (name == NotAnalyzed.name):
        raise InvalidResult("the image was not analyzed" if report.reason else "the image was analyzed")
    for reading in report.readings:
        for part in ("sop_class", "sop_instance", "study", "series"):
            if not getattr(reading.identity, part):
                raise InvalidResult(f"the source has no {part.replace('_', ' ')} UID")
        if not reading.findings and not report.reason:
            raise InvalidResult("the model named no finding")
        if reading.findings and report.reason:
            raise InvalidResult("there are findings of what was not analyzed")
        if change := reading.identity.patient_change:
            raise InvalidResult(f"the patient can't be named as the image names it: {change}")
        if reading.identity.study != report.identity.study:
            raise InvalidResult("the images are of two studies")
        if reading.identity.bytes_of("PatientID") != report.identity.bytes_of("PatientID"):
            raise InvalidResult("the images are of two patients")


def _mark_as_ours(dataset: Dataset, report: Report, of: Sequence[Reading]) -> None:
    """By these a node knows its own results again, also after its database is lost; either is enough."""
    block = dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    block.add_new(0x01, "LT", "\n".join(reading.content_hash for reading in of))
    block.add_new(0x02, "LT", report.card.sha256)
    block.add_new(0x03, "IS", str(report.revision))

    purpose = Dataset()
    purpose.CodeValue = "109102"
    purpose.CodingSchemeDesignator = "DCM"
    purpose.CodeMeaning = "Processing Equipment"
    item = Dataset()
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = MANUFACTURER
    item.SoftwareVersions = software_version()
    item.DeviceSerialNumber = dataset.DeviceSerialNumber
    item.ContributionDescription = "Chest X-ray findings by a neural network, research use"
    item.PurposeOfReferenceCodeSequence = [purpose]
    dataset.ContributingEquipmentSequence = [item]


def _date(dataset: Dataset, report: Report) -> None:
    """Times from the report, not from the clock: highdicom has put the clock's there."""
    at = report.local_time
    day, time = at.strftime("%Y%m%d"), at.strftime("%H%M%S.%f")
    # a presentation state has no content date (PS3.3 A.33.1)
    for what in ("InstanceCreation", "Series", *(["Content"] if dataset.Modality != "PR" else [])):
        setattr(dataset, f"{what}Date", day)
        setattr(dataset, f"{what}Time", time)
    dataset.ContributingEquipmentSequence[0].ContributionDateTime = day + time + at.strftime("%z")[:5]


def _file_head(dataset: Dataset) -> bytes:
    """Preamble and file meta group (PS3.10 7.1)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(uid("implementation", MANUFACTURER))
    meta.ImplementationVersionName = f"HILUM_{software_version()}"[:16]
    out = DicomBytesIO()
    write_file_meta_info(out, meta, enforce_standard=True)
    return b"\0" * 128 + b"DICM" + out.getvalue()
