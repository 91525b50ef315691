"""One compressed stream -> the words of one picture, or Undecodable with a reason.

The stream's own header is read first and compared with the data set's: rows, columns, depth, kind, end marker,
impossible sizes. Which decoder then runs is fixed by DECODERS, never by the order of pydicom's plugins, because
some of them return half a picture for a cut stream (measured: pylibjpeg-libjpeg does, for JPEG, JPEG Lossless
and JPEG-LS).

Not noticed by any check: some bytes overwritten in the middle of a JPEG or JPEG 2000 stream.
"""

import ctypes
import importlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image as Pillow

from model.errors import Undecodable

Words = np.ndarray[Any, np.dtype[Any]]

MAX_PIXELS = 64 * 1000 * 1000
"""The largest picture: seven times a 43 x 35 cm detector at 0.125 mm. 60,000 x 60,000 is a bomb."""

PADDING = b"\0\xff"
"""What fills a last fragment behind the end marker: zero by PS3.5 A.4, 0xFF in the WG-04 samples."""

DAMAGED = "The compressed image is damaged and can't be decoded"
CUT = "The compressed image breaks off"


@dataclass(frozen=True)
class Layout:
    """What the header says about one frame of one grey sample per pixel (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    allocated: int
    stored: int
    high_bit: int
    signed: bool

    @property
    def frame_bytes(self) -> int:
        return self.rows * self.columns * self.allocated // 8


@dataclass(frozen=True)
class Claim:
    """What a compressed stream says about itself, in its own header."""

    rows: int
    columns: int
    precision: int
    components: int


def _agree(claim: Claim, layout: Layout) -> None:
    if claim.rows * claim.columns > MAX_PIXELS:
        raise Undecodable(f"The compressed image claims an impossible size ({claim.columns} x {claim.rows})")
    if (claim.rows, claim.columns) != (layout.rows, layout.columns):
        raise Undecodable("Header and compressed image disagree about the size")
    if claim.components != 1:
        raise Undecodable("Header and compressed image disagree about the number of colours")
    if not 2 <= claim.precision <= layout.allocated:
        raise Undecodable("Header and compressed image disagree about the depth")


def _shape(decoded: bytes | bytearray | Words, claim: Claim) -> Words:
    """A decoder's bytes as unsigned words, H×W."""
    width = 1 if claim.precision <= 8 else 2 if claim.precision <= 16 else 4
    if len(decoded) != claim.rows * claim.columns * width:
        raise Undecodable(DAMAGED)
    return np.frombuffer(decoded, f"<u{width}").reshape(claim.rows, claim.columns)


def _rle(stream: bytes, layout: Layout) -> Words:
    """RLE Lossless (PS3.5 annex G). Unlike pydicom's decoder it stops as soon as a segment has given more
    bytes than the picture has pixels: 80 kB can unpack to 5 MB."""
    if len(stream) < 64:
        raise Undecodable(CUT)
    count, *offsets = struct.unpack_from("<16L", stream)
    width = layout.allocated // 8
    if count != width:
        raise Undecodable(DAMAGED)
    edges = [*offsets[:count], len(stream)]
    if edges[0] < 64 or any(a >= b for a, b in pairwise(edges)):
        raise Undecodable(DAMAGED)
    size = layout.rows * layout.columns
    words = np.empty((size, width), np.uint8)
    for n in range(count):  # most significant byte first
        words[:, width - 1 - n] = np.frombuffer(_unpack(stream[edges[n] : edges[n + 1]], size), np.uint8)
    return words.view(f"<u{width}").reshape(layout.rows, layout.columns)


def _unpack(segment: bytes, size: int) -> bytearray:
    """One RLE segment of exactly `size` bytes (PackBits)."""
    out = bytearray()
    at, end = 0, len(segment)
    while at < end - 1 and len(out) < size:
        head = segment[at]
        if head < 128:
            out += segment[at + 1 : at + 2 + head]
            at += 2 + head
        else:
            if head > 128:
                out += segment[at + 1 : at + 2] * (257 - head)
            at += 2 if head > 128 else 1
    if len(out) != size or end - at > 1:
        raise Undecodable(DAMAGED if len(out) >= size else CUT)
    return out


def _jpeg_claim(stream: bytes, allowed: frozenset[int]) -> Claim:
    """The frame header of a JPEG or JPEG-LS stream (ISO 10918-1 B.2.2, 14495-1 C.2.2), and its end marker."""
    if stream[:2] != b"\xff\xd8":
        raise Undecodable(DAMAGED)
    if not stream.rstrip(PADDING).endswith(b"\xff\xd9"):
        raise Undecodable(CUT)
    claim: Claim | None = None
    at = 2
    while at + 4 <= len(stream):
        if stream[at] != 0xFF:
            raise Undecodable(DAMAGED)
        marker, length = stream[at + 1], struct.unpack_from(">H", stream, at + 2)[0]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        body = stream[at + 4 : at + 2 + length]
        if marker in allowed:
            if len(body) < 6:
                raise Undecodable(DAMAGED)
            precision, rows, columns, components = struct.unpack_from(">BHHB", body)
            claim = Claim(rows, columns, precision, components)
        elif marker == 0xDA:
            if claim is None:
                break
            if allowed & {0xC0, 0xC1} and body[-3:-1] != b"\x00\x3f":
                raise Undecodable(
                    "The compressed image has the known defect Ss = Se = 0 of old JPEG Extended files"
                )
            return claim
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            raise Undecodable("The compressed image is of another kind of JPEG than the header says")
        at += 2 + length
    raise Undecodable(DAMAGED)


_SEQUENTIAL, _LOSSLESS, _LS = frozenset({0xC0, 0xC1}), frozenset({0xC3}), frozenset({0xF7})


def _jpeg(stream: bytes, layout: Layout) -> Words:
    """JPEG Baseline and Extended: 8 bits by Pillow, 12 bits by GDCM."""
    claim = _jpeg_claim(stream, _SEQUENTIAL)
    _agree(claim, layout)
    if claim.precision != 8:
        return _gdcm(stream, claim)
    try:
        with Pillow.open(BytesIO(stream), formats=["JPEG"]) as picture:
            return np.asarray(picture.convert("L"))
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise Undecodable(DAMAGED) from error


def _jpeg_lossless(stream: bytes, layout: Layout) -> Words:
    """JPEG Lossless, process 14, any predictor: by libjpeg-turbo where imagecodecs is installed, else by GDCM.

    The former takes a third of the time. Both give the same values, of damaged streams too; neither minds a stream that
    was cut and then closed with an end marker.
    """
    claim = _jpeg_claim(stream, _LOSSLESS)
    _agree(claim, layout)
    turbo = libjpeg_turbo()
    if turbo is None:
        return _gdcm(stream, claim)
    try:
        return _shape(np.ascontiguousarray(turbo(stream)).reshape(-1).view(np.uint8), claim)
    except (RuntimeError, ValueError) as error:
        raise Undecodable(DAMAGED) from error


@cache
def libjpeg_turbo() -> Callable[[bytes], Words] | None:
    """imagecodecs' decoder of JPEG streams of 2 to 16 bits; None where it is not installed."""
    try:
        decode: Callable[[bytes], Words] = importlib.import_module("imagecodecs").jpeg8_decode
        decode(b"")
    except (ImportError, AttributeError):
        return None
    except (RuntimeError, ValueError):
        pass
    return decode


def _gdcm(stream: bytes, claim: Claim) -> Words:
    """GDCM's JPEG codec by itself: pydicom offers it neither for 12-bit JPEG Extended nor without its own guesses.

    The picture is taken from where it lies in memory: as GDCM's `GetBuffer` it would go through a str of surrogates and
    back, which takes half as long as the decoding.
    """
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    codec = gdcm.JPEGCodec()
    codec.SetNumberOfDimensions(2)
    codec.SetDimensions((claim.columns, claim.rows, 1))
    monochrome = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    codec.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(monochrome))
    allocated = 8 if claim.precision <= 8 else 16
    codec.SetPixelFormat(gdcm.PixelFormat(1, allocated, claim.precision, claim.precision - 1, 0))
    decoded = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    if not codec.Decode(element, decoded):
        raise Undecodable(DAMAGED)
    found = decoded.GetByteValue()
    return _shape(ctypes.string_at(int(found.GetVoidPointer()), int(str(found.GetLength()))), claim)


def _jpeg_ls(stream: bytes, layout: Layout) -> Words:
    """JPEG-LS, lossless and near-lossless, by CharLS (pyjpegls)."""
    import jpeg_ls

    claim = _jpeg_claim(stream, _LS)
    _agree(claim, layout)
    try:
        decoded, _ = jpeg_ls.decode_pixel_data(stream)
    except (RuntimeError, ValueError) as error:
        raise Undecodable(DAMAGED) from error
    return _shape(decoded, claim)


def _jpeg_2000(stream: bytes, layout: Layout) -> Words:
    """JPEG 2000 and HTJ2K by OpenJPEG (pylibjpeg-openjpeg), after reading SIZ (ISO 15444-1 A.5.1)."""
    import openjpeg

    if stream[:4] != b"\xff\x4f\xff\x51" or len(stream) < 51:
        raise Undecodable(DAMAGED)
    width, height, left, top = struct.unpack_from(">4L", stream, 8)
    components, depth = struct.unpack_from(">HB", stream, 40)
    claim = Claim(height - top, width - left, (depth & 0x7F) + 1, components)
    _agree(claim, layout)
    if not stream.rstrip(PADDING).endswith(b"\xff\xd9"):
        raise Undecodable(CUT)
    try:
        decoded = openjpeg.decode(stream, j2k_format=0, reshape=False)
    except (RuntimeError, ValueError) as error:
        raise Undecodable(DAMAGED) from error
    raw = _shape(np.ascontiguousarray(decoded), claim)
    return raw & ((1 << claim.precision) - 1) if depth & 0x80 else raw  # signed: the words are sign extended


_JPEG = "1.2.840.10008.1.2.4."
DECODERS: dict[str, Callable[[bytes, Layout], Words]] = {
    "1.2.840.10008.1.2.5": _rle,
    _JPEG + "50": _jpeg,
    _JPEG + "51": _jpeg,
    _JPEG + "57": _jpeg_lossless,
    _JPEG + "70": _jpeg_lossless,
    _JPEG + "80": _jpeg_ls,
    _JPEG + "81": _jpeg_ls,
    _JPEG + "90": _jpeg_2000,
    _JPEG + "91": _jpeg_2000,
    _JPEG + "201": _jpeg_2000,
    _JPEG + "202": _jpeg_2000,
    _JPEG + "203": _jpeg_2000,
}
"""Transfer syntax -> what turns its stream into unsigned words, H×W. Each raises Undecodable."""
