"""Pixel Data -> the stored values of one grey picture, or Undecodable with a reason.

What the header claims is checked against itself and against the bytes that are there before anything of that
size is allocated. Compressed streams are model/streams.py's.
"""

import struct
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.uid import UID

from model.errors import Undecodable
from model.streams import DAMAGED, DECODERS, MAX_PIXELS, Layout, Words

Stored = np.ndarray[Any, np.dtype[np.integer[Any]]]

MAX_PIXEL_DATA = MAX_PIXELS * 4
"""More bytes than this are no single picture of MAX_PIXELS pixels: open_dataset leaves them on disk."""

IMPLICIT_LE, EXPLICIT_LE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED_LE, EXPLICIT_BE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
NATIVE = frozenset({IMPLICIT_LE, EXPLICIT_LE, DEFLATED_LE, EXPLICIT_BE})

UNDEFINED_LENGTH = 0xFFFFFFFF
PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA = 0x7FE00010, 0x7FE00008, 0x7FE00009


def stored_values(dataset: Dataset) -> Stored:
    """The values of the picture, H×W, in whole numbers that may be as narrow as the stored ones: shifted and masked to
    Bits Stored, sign extended. May lie in the data set's own bytes. Raises Undecodable.
    """
    layout = read_layout(dataset)
    value, length = pixel_element(dataset)
    syntax = transfer_syntax(dataset)
    encapsulated = length == UNDEFINED_LENGTH
    if syntax in NATIVE:
        if encapsulated:
            raise Undecodable("Announced as uncompressed, but the image data is compressed")
        raw = _native(dataset, layout, value)
    elif syntax in DECODERS:
        if not encapsulated:
            raise Undecodable(f"Announced as {_name(syntax)}, but the image data is not compressed")
        raw = DECODERS[syntax](_stream(value), layout)
        highest = int(raw.max())
        if highest >> (layout.high_bit + 1):
            raise Undecodable("Header and compressed image disagree about the depth")
    else:
        raise Undecodable(f"The encoding of the pixels is not supported ({_name(syntax)})")
    return _interpret(raw, layout)


def transfer_syntax(dataset: Dataset) -> str:
    """The transfer syntax of the meta group; Implicit VR Little Endian where there is none (PS3.5 10.1)."""
    meta = getattr(dataset, "file_meta", None)
    return str(meta.get("TransferSyntaxUID") or IMPLICIT_LE) if meta is not None else IMPLICIT_LE


def _name(syntax: str) -> str:
    uid = UID(syntax)
    return uid.name if uid.is_valid else "no valid UID"


def frames(dataset: Dataset) -> int:
    """Number of Frames; absent, 0 or unreadable is one."""
    number = whole(dataset, "NumberOfFrames")
    return number if number is not None and number > 1 else 1


def promises_too_many_frames(dataset: Dataset) -> bool:
    """Whether uncompressed Pixel Data is shorter than the frames that the header promises."""
    pixels = [whole(dataset, k) for k in ("Rows", "Columns", "BitsAllocated")]
    element = dataset.get_item(PIXEL_DATA) if PIXEL_DATA in dataset else None
    if element is None or None in pixels or transfer_syntax(dataset) not in NATIVE:
        return False
    rows, columns, allocated = (p or 0 for p in pixels)
    samples = whole(dataset, "SamplesPerPixel") or 1
    bits = rows * columns * allocated * samples * frames(dataset)
    return _length(element) * 8 < bits


def whole(dataset: Dataset, keyword: str) -> int | None:
    """A whole number of the header; None where it is absent or not one."""
    try:
        value = dataset.get(keyword)
        return int(value) if value is not None and not isinstance(value, str | bytes) else None
    except (TypeError, ValueError, KeyError, NotImplementedError, OverflowError, struct.error):
        return None


def read_layout(dataset: Dataset) -> Layout:
    """The Image Pixel module, checked against itself. Raises Undecodable."""
    if FLOAT_PIXEL_DATA in dataset or DOUBLE_PIXEL_DATA in dataset:
        raise Undecodable("The pixel type (floating point) is not supported for a radiograph")
    if not _length(dataset.get_item(PIXEL_DATA)) if PIXEL_DATA in dataset else True:
        raise Undecodable("The object contains no image")
    rows, columns = whole(dataset, "Rows"), whole(dataset, "Columns")
    if rows is None or columns is None:
        raise Undecodable("The number of rows or columns can't be read")
    if rows < 1 or columns < 1:
        raise Undecodable("The header says that the image has no rows or no columns")
    if rows * columns > MAX_PIXELS:
        raise Undecodable(f"The image claims an impossible size ({columns} x {rows})")
    if (whole(dataset, "SamplesPerPixel") or 1) != 1:
        raise Undecodable("The image has more than one sample per pixel")
    allocated = whole(dataset, "BitsAllocated")
    if allocated not in (8, 16, 32):
        raise Undecodable(f"Bits Allocated {allocated} is not supported")
    stored = whole(dataset, "BitsStored") or allocated
    high_bit = whole(dataset, "HighBit")
    high_bit = stored - 1 if high_bit is None else high_bit
    if not 1 <= stored <= allocated:
        raise Undecodable(f"The header contradicts itself ({stored} bits stored in {allocated})")
    if not stored - 1 <= high_bit < allocated:
        raise Undecodable(f"The header contradicts itself (high bit {high_bit}, {stored} bits stored)")
    layout = Layout(rows, columns, allocated, stored, high_bit, whole(dataset, "PixelRepresentation") == 1)
    if frames(dataset) > 1:
        lacking = ", but they are not there" if promises_too_many_frames(dataset) else ""
        raise Undecodable(f"The header promises {frames(dataset)} pictures{lacking}")
    return layout


def pixel_element(dataset: Dataset) -> tuple[bytes, int]:
    """Pixel Data's bytes and its length as declared (UNDEFINED_LENGTH where encapsulated)."""
    element: Any = dataset.get_item(PIXEL_DATA)
    value = element.value or b""
    length = _length(element)
    if length not in (len(value), UNDEFINED_LENGTH) or (not value and length):
        raise Undecodable("There are more bytes of image data than one radiograph has")
    return value, length


def _length(element: Any) -> int:
    if element is None:
        return 0
    if isinstance(element, RawDataElement):
        return element.length
    return UNDEFINED_LENGTH if element.is_undefined_length else len(element.value or b"")


def _native(dataset: Dataset, layout: Layout, value: bytes) -> Words:
    """Uncompressed pixels (PS3.5 8.1.1, 8.2). Extra bytes after the frame are ignored."""
    if len(value) < layout.frame_bytes:
        raise Undecodable(
            f"Part of the image data is missing ({len(value):,} of {layout.frame_bytes:,} bytes are there)"
        )
    big = transfer_syntax(dataset) == EXPLICIT_BE
    count = layout.rows * layout.columns
    if big and layout.allocated == 8 and getattr(dataset.get_item(PIXEL_DATA), "VR", "") == "OW":
        words = np.frombuffer(value[: layout.frame_bytes + layout.frame_bytes % 2], "<u2")
        flat = words.byteswap().view(np.uint8)[:count]  # pairs of pixels travel as 16-bit words
    else:
        order = ">" if big else "<"
        flat = np.frombuffer(value, f"{order}u{layout.allocated // 8}", count)
    return flat.reshape(layout.rows, layout.columns)


def _interpret(raw: Words, layout: Layout) -> Stored:
    """Unsigned words -> values: what lies outside the stored bits (overlays, rubbish) is masked off."""
    shift = layout.high_bit + 1 - layout.stored
    values: Stored = np.asarray(raw >> shift if shift else raw, raw.dtype.newbyteorder("="))
    if int(values.max()) >> layout.stored:
        values = np.bitwise_and(values, (1 << layout.stored) - 1)
    if layout.signed:
        sign = 1 << (layout.stored - 1)
        wide = values.astype(np.int64 if layout.stored > 31 else np.int32)
        values = np.bitwise_xor(wide, sign) - sign
    return values


def _stream(value: bytes) -> bytes:
    """The fragments of the only frame, joined (PS3.5 A.4). The offset tables are not needed for that."""
    fragments: list[bytes] = []
    at = 0
    while at + 8 <= len(value):
        tag, length = struct.unpack_from("<LL", value, at)
        if tag == 0xE0DDFFFE:
            break
        if tag != 0xE000FFFE or at + 8 + length > len(value):
            raise Undecodable(DAMAGED)
        fragments.append(value[at + 8 : at + 8 + length])
        at += 8 + length
    stream = fragments[1] if len(fragments) == 2 else b"".join(fragments[1:])
    if not stream:
        raise Undecodable("The compressed image is empty")
    return stream
