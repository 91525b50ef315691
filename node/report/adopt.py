"""A result file whose row was lost: what it is, read back from the file itself."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError

from node.report import PRIVATE_CREATOR, PRIVATE_GROUP, WRITERS
from node.report.reading import MANUFACTURER
from node.wire.contexts import SR_CLASSES

# variants of the SR writer by the class that they write
SR_VARIANTS = {sop_class: variant for variant, sop_class in SR_CLASSES.items()}

KINDS = {9001: "sr", 9002: "sc", 9003: "text-sr", 9004: "gsps", 9005: "ko", 9006: "pdf", 9007: "not-analyzed"}
"""Each kind has a series number of its own, whatever its class."""


@dataclass(frozen=True)
class Found:
    """One of our results, as far as its file tells."""

    writer: str
    variant: str
    sop_class: str
    sop_instance: str
    series: str
    study: str
    content_hash: str
    sources: tuple[str, ...]
    """Content hashes of the images that it was made of, in the report's order."""
    instances: frozenset[str]
    """SOP instances that it names as what it was made of."""
    of_study: bool
    """It shows that its report has several images. The first of several pictures does not, but its series does."""
    revision: int


_EVIDENCE = (
    "CurrentRequestedProcedureEvidenceSequence",
    "ReferencedSeriesSequence",
    "ReferencedSOPSequence",
    "ReferencedImageSequence",
    "SourceImageSequence",
    "SourceInstanceSequence",
)


def recognize(path: Path) -> Found | None:
    """The result in `path`; None if it is none of ours, no DICOM object, or can't be read."""
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        return _found(dataset, path)
    except (
        InvalidDicomError,
        OSError,
        AttributeError,
        IndexError,
        KeyError,
        TypeError,
        ValueError,
        NotImplementedError,
    ):
        return None


def _found(dataset: Dataset, path: Path) -> Found | None:
    if dataset.get("Manufacturer") != MANUFACTURER:
        return None
    start = 132 + 12 + int(dataset.file_meta.FileMetaInformationGroupLength)
    marks = dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR)
    # one a line
    sources = tuple(str(marks[0x01].value).split())
    writer = KINDS[int(dataset.SeriesNumber)]
    variant = SR_VARIANTS[str(dataset.SOPClassUID)] if writer == "sr" else ""
    image = int(dataset.InstanceNumber) if WRITERS[writer].each_image else 1
    return Found(
        writer=writer,
        variant=variant if image == 1 else f"{variant}#{image}",
        sop_class=str(dataset.SOPClassUID),
        sop_instance=str(dataset.SOPInstanceUID),
        series=str(dataset.SeriesInstanceUID),
        study=str(dataset.StudyInstanceUID),
        content_hash="sha256:" + hashlib.sha256(path.read_bytes()[start:]).hexdigest(),
        sources=sources,
        instances=frozenset(_instances(dataset)),
        of_study=len(sources) > 1 or image > 1,
        revision=int(marks[0x03].value),
    )


def _instances(dataset: Dataset) -> Iterator[str]:
    for keyword in _EVIDENCE:
        for item in dataset.get(keyword) or ():
            if "ReferencedSOPInstanceUID" in item:
                yield str(item.ReferencedSOPInstanceUID)
            yield from _instances(item)
