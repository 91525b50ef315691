"""The Image Library of an SR: which images were analyzed, and what their headers say of them (PS3.16 TID 1600 to 1603).

highdicom's own needs a spacing and an orientation that a CR often lacks, and copies what stands there. Here each
descriptor is written only where the header has it whole, and from the header come numbers and known codes only.
"""

from typing import Any

from pydicom import Dataset

from model.decode import whole
from model.header import numbers, orientation, quietly, text
from node.report.findings import Code
from node.report.parts import SOURCE, coded
from node.report.reading import Report

LIBRARY = Code("111028", "DCM", "Image Library")
GROUP = Code("126200", "DCM", "Image Library Group")

MODALITY = Code("121139", "DCM", "Modality")
VIEW = Code("111031", "DCM", "Image View")
LATERALITY = Code("111027", "DCM", "Image Laterality")
ROWS, COLUMNS = Code("110910", "DCM", "Pixel Data Rows"), Code("110911", "DCM", "Pixel Data Columns")
HORIZONTAL = Code("111026", "DCM", "Horizontal Pixel Spacing")
VERTICAL = Code("111066", "DCM", "Vertical Pixel Spacing")
ROW_TO = Code("111044", "DCM", "Patient Orientation Row")
COLUMN_TO = Code("111043", "DCM", "Patient Orientation Column")
PIXELS, MILLIMETERS = Code("{pixels}", "UCUM", "Pixels"), Code("mm", "UCUM", "mm")

# CID 29, CID 4010, CID 244
MODALITIES = {
    "CR": Code("CR", "DCM", "Computed Radiography"),
    "DX": Code("DX", "DCM", "Digital Radiography"),
    "RG": Code("RG", "DCM", "Radiographic imaging"),
}
VIEWS = {
    "PA": Code("272479007", "SCT", "postero-anterior"),
    "AP": Code("399348003", "SCT", "antero-posterior"),
}
SIDES = {
    "R": Code("24028007", "SCT", "Right"),
    "L": Code("7771000", "SCT", "Left"),
    "B": Code("51440002", "SCT", "Bilateral"),
}


def image_library(report: Report) -> Any:
    """The container, with all of the report's images in one group."""
    import highdicom.sr as hd

    contains = hd.RelationshipTypeValues.CONTAINS
    group = hd.ContainerContentItem(name=coded(GROUP), relationship_type=contains)
    group.ContentSequence = hd.ContentSequence()
    for reading in report.readings:
        image = hd.ImageContentItem(
            name=coded(SOURCE),
            referenced_sop_class_uid=reading.identity.sop_class,
            referenced_sop_instance_uid=reading.identity.sop_instance,
            relationship_type=contains,
        )
        with quietly():
            told = _descriptors(hd, reading.source)
        if told:
            image.ContentSequence = hd.ContentSequence(told)
        group.ContentSequence.append(image)
    library = hd.ContainerContentItem(name=coded(LIBRARY), relationship_type=contains, template_id="1600")
    library.ContentSequence = hd.ContentSequence([group])
    return library


def _descriptors(hd: Any, source: Dataset) -> list[Any]:
    """TID 1602 and 1603, as far as the header goes."""
    of = {"relationship_type": hd.RelationshipTypeValues.HAS_ACQ_CONTEXT}
    told = []
    for name, known, keywords in (
        (MODALITY, MODALITIES, ["Modality"]),
        (LATERALITY, SIDES, ["ImageLaterality", "Laterality"]),
        (VIEW, VIEWS, ["ViewPosition"]),
    ):
        word = next((w for k in keywords if (w := text(source, k).upper())), "")
        if word in known:
            told.append(hd.CodeContentItem(name=coded(name), value=coded(known[word]), **of))
    if directions := orientation(source):
        for name, direction in zip((ROW_TO, COLUMN_TO), directions, strict=True):
            told.append(hd.TextContentItem(name=coded(name), value=direction, **of))
    for name, keyword in ((ROWS, "Rows"), (COLUMNS, "Columns")):
        if count := whole(source, keyword):
            told.append(hd.NumContentItem(name=coded(name), value=count, unit=coded(PIXELS), **of))
    for name, value in zip((VERTICAL, HORIZONTAL), _spacing(source), strict=False):
        told.append(hd.NumContentItem(name=coded(name), value=value, unit=coded(MILLIMETERS), **of))
    return told


def _spacing(source: Dataset) -> list[float]:
    """Rows' and columns' distance in mm, at the detector; else as calibrated; empty where neither is said."""
    for keyword in ("ImagerPixelSpacing", "PixelSpacing"):
        pair = numbers(source, keyword)
        if len(pair) == 2 and min(pair) > 0:
            return [float(f"{n:.6g}") for n in pair]
    return []
