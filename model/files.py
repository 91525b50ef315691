"""A file -> a Dataset: Part 10 files (also without preamble or meta group), PNG and JPEG.

pydicom reads the elements; what it passes over in silence is an error here: a value that breaks off, Pixel
Data that is never closed (it would vanish), nesting without end, deflate that inflates without end, a file
that does not say how it is encoded. What is *not* checked here is node/receive/walk.py's: duplicate and
misplaced elements, UIDs, lengths inside sequences.
"""

import hashlib
import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from model.decode import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    MAX_PIXEL_DATA,
    PIXEL_DATA,
    UNDEFINED_LENGTH,
)
from model.errors import Unreadable
from model.streams import MAX_PIXELS

MAX_INFLATED = 256 * 1000 * 1000
"""Bytes that a deflated data set may have: deflate reaches 1,030 : 1, so 312 kB can be 320 MB."""

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
BROKEN_OFF = "The file breaks off: the image is incomplete"


def is_picture(path: Path) -> bool:
    """Whether the file is a PNG or a JPEG, by its first bytes."""
    with path.open("rb") as file:
        start = file.read(8)
    return start == b"\x89PNG\r\n\x1a\n" or start[:3] == b"\xff\xd8\xff"


def open_dataset(path: Path, *, max_inflated: int = MAX_INFLATED) -> Dataset:
    """The data set of a DICOM file, pixel data included, with its meta group as `file_meta`.

    A value of more than MAX_PIXEL_DATA bytes stays on disk: its element is there, empty.
    Raises Unreadable, and OSError where the file can't be opened.
    """
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("error")  # pydicom only warns where a value breaks off
        warnings.filterwarnings("ignore", message="(?!End of file)")
        size = path.stat().st_size
        if not size:
            raise Unreadable("The file is empty")
        meta = _meta(file, size)
        syntax = str(meta.TransferSyntaxUID)
        body: io.BufferedIOBase = file
        if syntax == DEFLATED_LE:
            inflated = _inflate(file.read(), max_inflated)
            body, size = io.BytesIO(inflated), len(inflated)
        dataset = _elements(body, size, syntax)
    dataset.file_meta = meta
    if not dataset.get("SOPClassUID"):
        raise Unreadable("The file does not say what kind of object it is")
    return dataset


def _meta(file: io.BufferedReader, size: int) -> FileMetaDataset:
    """The meta group, the file left at the data set (PS3.10 7.1). Where there is none, a plausible one."""
    start = file.read(132)
    prefixed = start[128:] == b"DICM"
    if not prefixed:
        if size < 16 or not _plausible(start[:8]):
            raise Unreadable("Not a DICOM file")
        file.seek(0)
    meta = FileMetaDataset()
    if prefixed or start[:2] == b"\x02\x00":
        try:
            meta = FileMetaDataset(
                read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
            )
            _check_whole(meta, file.tell())
            syntax = meta.get("TransferSyntaxUID")
        except Unreadable:
            raise
        except Exception as error:  # whatever pydicom raises on rubbish
            raise Unreadable("Not a DICOM file after its first 132 bytes") from error
        if not meta:
            raise Unreadable("Not a DICOM file after its first 132 bytes")
        if not syntax:
            raise Unreadable("The file does not say how it is encoded")
        if file.tell() >= size:
            raise Unreadable("The file contains no data set")
    else:
        meta.TransferSyntaxUID = UID(EXPLICIT_LE if start[4:6].isalpha() else IMPLICIT_LE)
    return meta


def _plausible(start: bytes) -> bool:
    """Whether a file without preamble begins like a meta group or a data set in little endian."""
    group, element, vr, length = struct.unpack("<HH2sH", start)
    if group not in (0x0002, 0x0008) or element > 0x0100:
        return False
    explicit = vr.isalpha() and vr.isupper()
    return bool(explicit or (group == 0x0008 and struct.unpack("<L", start[4:])[0] < 1024)) and length < 1024


def _inflate(deflated: bytes, most: int) -> bytes:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)  # no zlib header (PS3.5 A.5)
    try:
        inflated = inflate.decompress(deflated, most)
    except zlib.error as error:
        raise Unreadable("The file is damaged: it can't be inflated") from error
    if not inflate.eof:
        raise Unreadable(
            "The file unpacks to far more than an X-ray needs" if len(inflated) >= most else BROKEN_OFF
        )
    return inflated


def _elements(body: io.BufferedIOBase, size: int, syntax: str) -> Dataset:
    try:
        dataset = read_dataset(
            body,  # type: ignore[arg-type]
            syntax == IMPLICIT_LE,
            syntax != EXPLICIT_BE,
            defer_size=MAX_PIXEL_DATA,
        )
        _check_whole(dataset, size)
    except Unreadable:
        raise
    except RecursionError as error:
        raise Unreadable("The header is nested too deeply") from error
    except MemoryError:
        raise
    except Exception as error:  # whatever pydicom raises on rubbish, its warning about a missing end included
        raise Unreadable("The file is damaged or breaks off") from error
    return dataset


def _check_whole(dataset: Dataset, size: int) -> None:
    """Every value is as long as it says, and the last element ends where the file does.

    Rubbish behind whole Pixel Data is dropped: no result depends on it. A value that was left on disk for its
    size becomes an empty one that keeps its length.
    """
    pixels_whole = False
    end = size
    for tag in list(dataset.keys()):  # in the order of the file
        element = dataset.get_item(tag, keep_deferred=True)
        if not isinstance(element, RawDataElement) or element.length == UNDEFINED_LENGTH:
            end = size  # pydicom found its delimiter
            pixels_whole |= tag == PIXEL_DATA
            continue
        end = element.value_tell + element.length
        if end > size and pixels_whole:
            del dataset[tag]
            return
        if end > size:
            raise Unreadable(BROKEN_OFF)
        if element.value is None and element.length:
            dataset[tag] = element._replace(value=b"")
        pixels_whole |= tag == PIXEL_DATA
    if 0 < size - end < 8 and not pixels_whole:  # not even a tag and a length
        raise Unreadable(BROKEN_OFF)


def wrap(path: Path, *, view: str = "PA", age: int = 40) -> Dataset:
    """A PNG or JPEG as a Secondary Capture of an invented patient: modality DX, CHEST, view and age as given.

    The UIDs follow from the file's SHA-256: the same file is the same instance. Raises Unreadable.
    """
    content = path.read_bytes()
    try:
        with Pillow.open(io.BytesIO(content), formats=["PNG", "JPEG"]) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise Unreadable(f"The picture is impossibly large ({picture.width} x {picture.height})")
            deep = picture.mode.startswith("I")
            pixels = np.asarray(picture if deep else picture.convert("L"))
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise Unreadable("Neither DICOM nor a whole PNG or JPEG picture") from error
    pixels = np.clip(pixels, 0, 65535).astype("<u2") if deep else pixels
    bits = 16 if deep else 8
    data = pixels.tobytes()

    def uid(what: str) -> str:
        digest = hashlib.sha256(what.encode() + hashlib.sha256(content).digest()).digest()
        return f"2.25.{int.from_bytes(digest[:16], 'big')}"

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT_LE)
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.SOPClassUID = UID(SECONDARY_CAPTURE)
    dataset.SOPInstanceUID = UID(uid("instance"))
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.Modality = "DX"
    dataset.ConversionType = "WSD"
    dataset.PatientName = "INVENTED^PATIENT"
    dataset.PatientID = "INVENTED-" + hashlib.sha256(content).hexdigest()[:8].upper()
    dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.PatientAge = f"{age:03d}Y"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = view
    dataset.StudyInstanceUID = UID(uid("study"))
    dataset.SeriesInstanceUID = UID(uid("series"))
    dataset.StudyID = ""
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    return dataset
