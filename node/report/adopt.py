"""A result file whose row was lost: what it is, read back from the file itself."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError

from node.report import PRIVATE_CREATOR, PRIVATE_GROUP
from node.report.reading import MANUFACTURER
from node.wire.contexts import SECONDARY_CAPTURE, SR_CLASSES

# variants of the SR writer by the class that they write
SR_VARIANTS = {sop_class: variant for variant, sop_class in SR_CLASSES.items()}


@dataclass(frozen=True)
class Found:
    """One of our results, as far as its file tells."""

    writer: str
    variant: str
    sop_class: str
    sop_instance: str
    content_hash: str
    source: str
    source_hash: str
    revision: int


def recognize(path: Path) -> Found | None:
    """The result in `path`; None if it is none of ours or can't be read."""
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        meta = dataset.file_meta
        start = 132 + 12 + int(meta.FileMetaInformationGroupLength)
        source = _source(dataset)
        marks = dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR)
        source_hash, revision = str(marks[0x01].value), int(marks[0x03].value)
    except (InvalidDicomError, OSError, AttributeError, IndexError, KeyError, ValueError):
        return None
    if dataset.get("Manufacturer") != MANUFACTURER:
        return None
    if dataset.SOPClassUID == SECONDARY_CAPTURE:
        writer, variant = "sc", ""
    elif str(dataset.SOPClassUID) in SR_VARIANTS:
        writer, variant = "sr", SR_VARIANTS[str(dataset.SOPClassUID)]
    else:
        return None
    digest = hashlib.sha256(path.read_bytes()[start:]).hexdigest()
    return Found(
        writer=writer,
        variant=variant,
        sop_class=str(dataset.SOPClassUID),
        sop_instance=str(dataset.SOPInstanceUID),
        content_hash=f"sha256:{digest}",
        source=source,
        source_hash=source_hash,
        revision=revision,
    )


def _source(dataset: Dataset) -> str:
    if "SourceImageSequence" in dataset:
        return str(dataset.SourceImageSequence[0].ReferencedSOPInstanceUID)
    study = dataset.CurrentRequestedProcedureEvidenceSequence[0]
    return str(study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
