"""A result's data set -> bytes, in Explicit VR Little Endian (PS3.5 7.1.2): what pydicom's writer gives, sooner.

An SR of 15 findings is 560 data sets in each other with 1,900 elements, and pydicom takes 70 ms to write them. Nearly
all are short ASCII text of ours: those are written here, in 6 ms, the rest by pydicom. A test holds both to the same
bytes.
"""

import struct
import warnings
from collections.abc import Iterable

from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_dataset
from pydicom.tag import Tag

CONTENT_SEQUENCE = Tag(0x0040A730)

_ITEM = struct.Struct("<HHL")
_SHORT, _LONG = struct.Struct("<HH2sH"), struct.Struct("<HH2sxxL")
_LONGEST_SHORT = 0xFFFE
_TEXT = {vr: vr.encode() for vr in ("AE", "AS", "CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM")}


def encoded(dataset: Dataset) -> bytes:
    """The data set's bytes. The text of Content Sequence, and of what stands behind it, must be ASCII."""
    out = _file()
    with warnings.catch_warnings():
        # pydicom warns of a character set that it writes, rightly, as the source has it
        warnings.simplefilter("ignore")
        write_dataset(out, dataset[:CONTENT_SEQUENCE])
        if CONTENT_SEQUENCE in dataset:
            out.write(_element(dataset[CONTENT_SEQUENCE]))
        write_dataset(out, dataset[CONTENT_SEQUENCE + 1 :])
    return out.getvalue()


def _items(sequence: Iterable[Dataset]) -> bytes:
    """PS3.5 7.5.1, with lengths."""
    found = []
    for item in sequence:
        body = b"".join(_element(item[tag]) for tag in sorted(item.keys()))
        found += [_ITEM.pack(0xFFFE, 0xE000, len(body)), body]
    return b"".join(found)


def _element(element: DataElement) -> bytes:
    tag, value = element.tag, element.value
    if element.VR == "SQ":
        body = _items(value)
        return _LONG.pack(tag.group, tag.element, b"SQ", len(body)) + body
    if isinstance(value, str):
        if element.VR in ("UT", "UC"):
            body = _even(value, b" ")
            return _LONG.pack(tag.group, tag.element, element.VR.encode(), len(body)) + body
        body = _even(value, b"\0" if element.VR == "UI" else b" ")
        if (element.VR in _TEXT or element.VR == "UI") and len(body) <= _LONGEST_SHORT:
            return _SHORT.pack(tag.group, tag.element, element.VR.encode(), len(body)) + body
    out = _file()
    write_data_element(out, element)
    return out.getvalue()


def _even(text: str, padding: bytes) -> bytes:
    body = text.encode("ascii")
    return body + padding * (len(body) % 2)


def _file() -> DicomBytesIO:
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    return out
