"""Scores -> DICOM objects that go back to the PACS, checked.

`make` is the way in. A writer makes one kind of object out of a Reading and knows nothing of the patient; what all
results share (the patient, our marks, the times) is put in here, once, and then the object is encoded, once.
"""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from pydicom import Dataset, config
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian

from node.report.check import check
from node.report.reading import MANUFACTURER, InvalidResult, Reading, software_version, uid
from node.report.secondary_capture import SecondaryCapture
from node.report.sr import StructuredReport

__all__ = ["PRIVATE_CREATOR", "WRITERS", "InvalidResult", "Reading", "Result", "ResultWriter", "make"]

PRIVATE_CREATOR = "HILUM"
PRIVATE_GROUP = 0x4849
"""`HI` in ASCII, and odd."""


class ResultWriter(Protocol):
    """One kind of result."""

    name: str

    def write(self, reading: Reading, variant: str) -> Dataset:
        """A data set without the patient; all its text is ASCII. Raises InvalidResult."""


WRITERS: Mapping[str, ResultWriter] = MappingProxyType(
    {w.name: w for w in (StructuredReport(), SecondaryCapture())}
)


@dataclass(frozen=True)
class Result:
    """One object, encoded once and checked: these bytes are what is stored, sent and hashed."""

    writer: str
    variant: str
    sop_class: str
    sop_instance: str
    data: bytes
    """The whole Part 10 file, Explicit VR Little Endian."""
    content_hash: str
    """`sha256:…` of the data set bytes in it."""
    notes: tuple[str, ...]
    """What of the source could not be passed on as it was; names attributes, no values."""


def make(name: str, reading: Reading, variant: str = "") -> Result:
    """The object that WRITERS[name] makes of `reading`; equal readings give equal bytes.

    Raises InvalidResult where the object would not be one that a PACS may get.
    """
    # pydicom would warn of each odd value of the source, and print it; `identity` judges them itself
    with config.disable_value_validation():
        _hold_reportable(reading)
        dataset = Dataset()
        dataset.update(WRITERS[name].write(reading, variant))
        _mark_as_ours(dataset, reading)
        _date(dataset, reading)
        reading.identity.put(dataset)
        body = _encoded(dataset)
    result = Result(
        writer=name,
        variant=variant,
        sop_class=str(dataset.SOPClassUID),
        sop_instance=str(dataset.SOPInstanceUID),
        data=_file_head(dataset) + body,
        content_hash="sha256:" + hashlib.sha256(body).hexdigest(),
        notes=reading.identity.notes,
    )
    check(result.data, result.content_hash, reading)
    return result


def _hold_reportable(reading: Reading) -> None:
    for part in ("sop_class", "sop_instance", "study", "series"):
        if not getattr(reading.identity, part):
            raise InvalidResult(f"the source has no {part.replace('_', ' ')} UID")
    if not reading.findings:
        raise InvalidResult("the model named no finding")
    if change := reading.identity.patient_change:
        raise InvalidResult(f"the patient can't be named as the image names it: {change}")


def _mark_as_ours(dataset: Dataset, reading: Reading) -> None:
    """By these a node knows its own results again, also after its database is lost; either is enough."""
    block = dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    block.add_new(0x01, "LT", reading.content_hash)
    block.add_new(0x02, "LT", reading.card.sha256)
    block.add_new(0x03, "IS", str(reading.revision))

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


def _date(dataset: Dataset, reading: Reading) -> None:
    """Times from the reading, not from the clock: highdicom has put the clock's there."""
    at = reading.local_time
    day, time = at.strftime("%Y%m%d"), at.strftime("%H%M%S.%f")
    for what in ("InstanceCreation", "Content", "Series"):
        setattr(dataset, f"{what}Date", day)
        setattr(dataset, f"{what}Time", time)
    dataset.ContributingEquipmentSequence[0].ContributionDateTime = day + time + at.strftime("%z")[:5]


def _encoded(dataset: Dataset) -> bytes:
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    with warnings.catch_warnings():
        # pydicom warns of a character set that it writes, rightly, as the source has it
        warnings.simplefilter("ignore")
        write_dataset(out, dataset)
    return out.getvalue()


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
