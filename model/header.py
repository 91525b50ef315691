"""Reading attributes of a header that may break every rule, without ever raising.

What a value representation forbids (text in a number, an unknown character set, an unknown VR) reads as
nothing, or as the plain bytes where these are readable.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydicom import Dataset
from pydicom.config import disable_value_validation
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import Tag

MAX_ELEMENT = 16 * 1024
"""Bytes of the largest element that `slim` keeps: more is bulk data, or a joke."""
MAX_LUT = 288 * 1024
"""The same of a table of greys: two of 65,536 words each."""

MAX_DEPTH = 8
"""Nested sequences that `slim` keeps; the deepest that a result copies has three."""

_FAULTS = (
    AttributeError,
    ArithmeticError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)


@contextmanager
def quietly() -> Iterator[None]:
    """Without pydicom's complaints about values, as warnings or in the log: they quote what a patient's header says."""
    with disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def value(dataset: Dataset, keyword: str) -> Any:
    """The attribute's value; None where it is absent or can't be read."""
    try:
        return dataset.get(keyword)
    except _FAULTS:
        return None


def text(dataset: Dataset, keyword: str) -> str:
    """The attribute as text without outer spaces; several values are joined by a backslash; else empty."""
    found = value(dataset, keyword)
    try:
        if found is None and keyword in dataset:
            element = dataset.get_item(Tag(keyword))
            raw = getattr(element, "value", None)
            return raw.decode("latin-1").strip(" \0") if isinstance(raw, bytes) else ""
        if isinstance(found, MultiValue | list | tuple):
            return "\\".join(str(v) for v in found).strip(" \0")
        if isinstance(found, bytes):
            return found.decode("latin-1").strip(" \0")
        return "" if found is None else str(found).strip(" \0")
    except _FAULTS:
        return ""


def numbers(dataset: Dataset, keyword: str) -> list[float]:
    """The attribute's values as finite numbers; empty where one of them is not."""
    try:
        found = [float(part) for part in text(dataset, keyword).split("\\")]
    except ValueError:
        return []
    return found if all(math.isfinite(n) for n in found) else []


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; empty where it is absent or can't be read."""
    found = value(dataset, keyword)
    try:
        return [item for item in found or () if isinstance(item, Dataset)]
    except _FAULTS:
        return []


def orientation(dataset: Dataset) -> tuple[str, str] | None:
    """Where the rows and the columns run to (PS3.3 C.7.6.1.1.1), by the first letter of each:
    L, R, A, P, H or F. None where Patient Orientation is empty or says something else."""
    parts = [part.strip().upper() for part in text(dataset, "PatientOrientation").split("\\")]
    if len(parts) != 2 or not all(part and set(part) <= set("LRAPHF") for part in parts):
        return None
    return parts[0][0], parts[1][0]


def slim(dataset: Dataset) -> Dataset:
    """What a report needs of a data set: no pixels, overlays, curves, icons, private or huge
    elements, and none that can't be read. Small enough to be sent to another process; the values are shared."""
    kept = Dataset()
    for tag in list(dataset.keys()):
        if tag.is_private or tag.group >> 8 in _BULK_GROUPS or tag in _BULK:
            continue
        try:
            raw = dataset.get_item(tag)
            most = MAX_LUT if tag in _LUTS else MAX_ELEMENT
            if isinstance(raw, RawDataElement) and len(raw.value or b"") > most:
                continue
            element = dataset[tag]
            if _weight(element) <= most:  # pydicom's several names in one element can't be pickled
                kept[tag] = raw if element.VR == "PN" and isinstance(element.value, MultiValue) else element
        except _FAULTS:
            continue
    implicit, little = dataset.original_encoding
    kept.set_original_encoding(implicit, little, dataset.original_character_set)
    kept.file_meta = dataset.file_meta
    return kept


_BULK_GROUPS = frozenset({0x50, 0x54, 0x60, 0x7F})
"""Curves, waveforms, overlays, pixels: the upper halves of their group numbers."""

_LUTS = frozenset({0x00283000, 0x00283010})
"""Modality and VOI LUT Sequence: a presentation state must say of the greys what the image says."""

_BULK = frozenset(
    {
        0x00880200,  # Icon Image Sequence
        0x00281201,  # palettes
        0x00281202,
        0x00281203,
        0x20500010,  # Presentation LUT Sequence
        0x00420011,  # Encapsulated Document
    }
)


def _weight(element: Any, depth: int = 0) -> int:
    """About how many bytes the element holds; more than MAX_LUT where it is nested too deeply."""
    if depth > MAX_DEPTH:
        return MAX_LUT + 1
    found = element.value
    if isinstance(found, Sequence):
        return sum(8 + sum(_weight(item.get_item(t), depth + 1) for t in item.keys()) for item in found)  # noqa: SIM118
    return len(found) if isinstance(found, bytes | str) else 8 * len(found) if isinstance(found, list) else 8
