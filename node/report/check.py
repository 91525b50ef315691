"""Nothing invalid leaves: what is about to be queued is read back and looked at, as its receiver would.

This guards against our own mistakes, in production, in a millisecond; the tests ask dciodvfy and dsrdump as well.
"""

import hashlib
import re
import warnings
from io import BytesIO

from pydicom import Dataset, config, dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from node.report.findings import RESEARCH_USE
from node.report.reading import MANUFACTURER, InvalidResult, Reading

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
_IN_SR = [
    "CompletionFlag",
    "VerificationFlag",
    "PreliminaryFlag",
    "ContentDate",
    "ContentTime",
    "ValueType",
    "ConceptNameCodeSequence",
    "ContentTemplateSequence",
    "ContentSequence",
    "CurrentRequestedProcedureEvidenceSequence",
]
_IN_SC = [
    "ConversionType",
    "ImageType",
    "BurnedInAnnotation",
    "DerivationDescription",
    "SourceImageSequence",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
]
_ROOT = [
    "ConceptNameCodeSequence",
    "ContentSequence",
    "ValueType",
    "ContinuityOfContent",
    "ContentTemplateSequence",
]
_SR_FLAGS = {"CompletionFlag": "COMPLETE", "VerificationFlag": "UNVERIFIED", "PreliminaryFlag": "PRELIMINARY"}


def check(data: bytes, content_hash: str, reading: Reading) -> None:
    """Reads the whole file `data` back and compares it with the reading; raises InvalidResult."""
    try:
        with warnings.catch_warnings(), config.disable_value_validation():
            # the writers have said what is odd about the source's values; pydicom need not say it again
            warnings.simplefilter("ignore")
            result = dcmread(BytesIO(data))
            _check(result, data, content_hash, reading)
    except InvalidResult:
        raise
    except Exception as error:  # whatever a reader raises, this file is not one to send
        raise InvalidResult(f"the result can't be read back ({type(error).__name__})") from error


def _check(result: Dataset, data: bytes, content_hash: str, reading: Reading) -> None:
    meta = result.file_meta
    _hold(meta.TransferSyntaxUID == ExplicitVRLittleEndian, "not in Explicit VR Little Endian")
    _hold(data.endswith(b"DICM", 128, 132), "no preamble")
    start = 132 + 12 + meta.FileMetaInformationGroupLength
    _hold(content_hash == "sha256:" + hashlib.sha256(data[start:]).hexdigest(), "the content hash is another")
    _check_identity(result, reading)
    _present(result, _IN_ALL)
    _hold(
        (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID)
        == (result.SOPClassUID, result.SOPInstanceUID),
        "file meta group and data set name different instances",
    )
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        _hold(bool(_UID.fullmatch(result[keyword].value)), f"{keyword} is not ours")
    _hold(result.Manufacturer == MANUFACTURER, "Manufacturer is not ours")
    if result.Modality == "SR":
        _check_sr(result, reading)
    else:
        _check_sc(result, reading)


def _check_identity(result: Dataset, reading: Reading) -> None:
    """Patient and study are the source's, byte for byte where the source could be copied."""
    identity = reading.identity
    for name in ("sop_class", "sop_instance", "study", "series"):
        _hold(bool(getattr(identity, name)), f"the source has no {name.replace('_', ' ')} UID")
    _hold(result.StudyInstanceUID == identity.study, "StudyInstanceUID is not the source's")
    for keyword in identity.keywords:
        found = result.get_item(keyword)
        _hold(
            found is not None and (found.value or b"") == identity.bytes_of(keyword),
            f"{keyword} is not the source's",
        )
    _hold(
        result.get("TimezoneOffsetFromUTC", "") == identity.offset,
        "TimezoneOffsetFromUTC is not the source's",
    )


def _check_sr(result: Dataset, reading: Reading) -> None:
    from highdicom.sr import MeasurementReport

    _present(result, _IN_SR)
    for keyword, value in _SR_FLAGS.items():
        _hold(result[keyword].value == value, f"{keyword} is not {value}")
    source = (reading.identity.series, reading.identity.sop_class, reading.identity.sop_instance)
    evidence = [
        (series.SeriesInstanceUID, image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID)
        for study in result.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    ]
    _hold(evidence == [source], "the evidence is not the image that was analyzed")
    root = Dataset()
    for keyword in _ROOT:
        root[keyword] = result[keyword]
    tree = MeasurementReport.from_sequence([root], copy=False)
    groups = [
        group
        for container in tree[0].ContentSequence
        if container.name == codes.DCM.ImagingMeasurements
        for group in container.ContentSequence
        if group.name == codes.DCM.MeasurementGroup
    ]
    _hold(len(groups) == len(reading.findings), "findings are missing from the content tree")
    texts = [item.TextValue for item in tree[0].ContentSequence if item.ValueType == "TEXT"]
    _hold(RESEARCH_USE in texts, "it does not say that it is for research use")


def _check_sc(result: Dataset, reading: Reading) -> None:
    _present(result, _IN_SC)
    source = result.SourceImageSequence[0]
    _hold(
        (source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID)
        == (reading.identity.sop_class, reading.identity.sop_instance),
        "the source image is not the image that was analyzed",
    )
    _hold(result.BurnedInAnnotation == "YES", "BurnedInAnnotation is not YES")
    pixels = result.Rows * result.Columns
    _hold(len(result.PixelData) == pixels + pixels % 2, "the pixels do not fill rows and columns")


def _present(result: Dataset, keywords: list[str]) -> None:
    for keyword in keywords:
        element = result.get_item(keyword)
        _hold(element is not None and element.value not in (None, b"", ""), f"{keyword} is missing")


def _hold(held: bool, reason: str) -> None:
    if not held:
        raise InvalidResult(reason)
