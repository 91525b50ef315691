"""Nothing invalid leaves: what is about to be queued is read back and looked at, as its receiver would.

What every DICOM result must hold stands here, what one kind must hold stands with its writer. This guards against our
own mistakes, in production, in a millisecond; the tests ask dciodvfy and dsrdump as well.
"""

import hashlib
import re
import warnings
from collections.abc import Callable
from io import BytesIO

from pydicom import Dataset, config, dcmread
from pydicom.uid import ExplicitVRLittleEndian

from node.report.reading import MANUFACTURER, InvalidResult, Reading, Report

_UID = re.compile(r"2\.25\.[1-9][0-9]{0,38}")

# type 1 and type 2 of PS3.3 C.7.1.1, C.7.2.1, C.7.3.1, C.7.5.1, C.12.1; and what docs/results.md says of each result
_IN_ALL = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "SeriesNumber",
    "InstanceNumber",
    "Manufacturer",
    "ManufacturerModelName",
    "InstanceCreationDate",
    "InstanceCreationTime",
    "ContributingEquipmentSequence",
]


def check(data: bytes, content_hash: str, report: Report, image: int, own: Callable[[Dataset], None]) -> None:
    """Reads the whole file `data` back and compares it with the report; raises InvalidResult.

    `image`: whose patient and study it bears; `own`: what its writer holds of an object of its kind.
    """
    try:
        with warnings.catch_warnings(), config.disable_value_validation():
            # the writers have said what is odd about the source's values; pydicom need not say it again
            warnings.simplefilter("ignore")
            result = dcmread(BytesIO(data))
            _check(result, data, content_hash, report, image, own)
    except InvalidResult:
        raise
    except Exception as error:  # whatever a reader raises, this file is not one to send
        raise InvalidResult(f"the result can't be read back ({type(error).__name__})") from error


def _check(
    result: Dataset,
    data: bytes,
    content_hash: str,
    report: Report,
    image: int,
    own: Callable[[Dataset], None],
) -> None:
    reading = report.readings[image]
    meta = result.file_meta
    hold(meta.TransferSyntaxUID == ExplicitVRLittleEndian, "not in Explicit VR Little Endian")
    hold(data.endswith(b"DICM", 128, 132), "no preamble")
    start = 132 + 12 + meta.FileMetaInformationGroupLength
    hold(content_hash == "sha256:" + hashlib.sha256(data[start:]).hexdigest(), "the content hash is another")
    _check_identity(result, reading)
    present(result, _IN_ALL)
    hold(
        (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID)
        == (result.SOPClassUID, result.SOPInstanceUID),
        "file meta group and data set name different instances",
    )
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        hold(bool(_UID.fullmatch(result[keyword].value)), f"{keyword} is not ours")
    hold(result.Manufacturer == MANUFACTURER, "Manufacturer is not ours")
    own(result)


def _check_identity(result: Dataset, reading: Reading) -> None:
    """Patient and study are the source's, byte for byte where the source could be copied."""
    identity = reading.identity
    for name in ("sop_class", "sop_instance", "study", "series"):
        hold(bool(getattr(identity, name)), f"the source has no {name.replace('_', ' ')} UID")
    hold(result.StudyInstanceUID == identity.study, "StudyInstanceUID is not the source's")
    for keyword in identity.keywords:
        found = result.get_item(keyword)
        hold(
            found is not None and (found.value or b"") == identity.bytes_of(keyword),
            f"{keyword} is not the source's",
        )
    hold(
        result.get("TimezoneOffsetFromUTC", "") == identity.offset,
        "TimezoneOffsetFromUTC is not the source's",
    )


def present(result: Dataset, keywords: list[str]) -> None:
    """Raises InvalidResult where an attribute is missing or empty."""
    for keyword in keywords:
        element = result.get_item(keyword)
        hold(element is not None and element.value not in (None, b"", ""), f"{keyword} is missing")


def hold(held: bool, reason: str) -> None:
    """Raises InvalidResult(reason) where it does not hold."""
    if not held:
        raise InvalidResult(reason)
