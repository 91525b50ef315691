"""A result as something that needs no DICOM viewer: a Structured Report as text, a Secondary Capture as PNG."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID


def text(report: Dataset) -> str:
    """The content tree of an SR (PS3.3 C.17.3), an item a line. Nothing of the patient module is in it."""
    return "\n".join(_lines(report, 0)) + "\n"


def _lines(item: Dataset, depth: int) -> Iterator[str]:
    name = _meaning(item, "ConceptNameCodeSequence")
    value = _value(item)
    yield "  " * depth + (f"{name}: {value}" if name and value else name or value)
    for child in item.get("ContentSequence", []):
        yield from _lines(child, depth + 1)


def _value(item: Dataset) -> str:
    match str(item.get("ValueType", "")):
        case "TEXT":
            return str(item.TextValue)
        case "CODE":
            return _meaning(item, "ConceptCodeSequence")
        case "NUM":
            measured = item.MeasuredValueSequence[0]
            unit = _meaning(measured, "MeasurementUnitsCodeSequence")
            return f"{measured.NumericValue} {unit}"
        case "UIDREF":
            return str(item.UID)
        case "DATETIME":
            return str(item.DateTime)
        case "DATE":
            return str(item.Date)
        case "TIME":
            return str(item.Time)
        case "PNAME":
            return "(a person)"
        case "IMAGE" | "COMPOSITE":
            referenced = item.ReferencedSOPSequence[0]
            return f"{UID(referenced.ReferencedSOPClassUID).name} {referenced.ReferencedSOPInstanceUID}"
    return ""


def _meaning(item: Dataset, keyword: str) -> str:
    codes = item.get(keyword)
    return str(codes[0].CodeMeaning) if codes else ""


def save_png(picture: Dataset, path: Path) -> None:
    """Writes an uncompressed 8-bit picture, grey or RGB, as a PNG."""
    from PIL import Image

    samples = int(picture.SamplesPerPixel)
    shape = (picture.Rows, picture.Columns, samples)[: 3 if samples > 1 else 2]
    pixels = np.frombuffer(picture.PixelData, np.uint8, count=int(np.prod(shape))).reshape(shape)
    Image.fromarray(pixels).save(path, format="PNG")
