"""A DICOM file on disk, walked like an object that arrives (PS3.10 section 7).

For `hilum analyze`, adoption and repair. Files without a preamble or without meta information are read too, where
their first bytes leave no doubt about the encoding.
"""

import hashlib
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from node.receive.header import Damaged, Header, uid
from node.receive.walk import Limits, Walker
from node.wire import contexts

MAX_META = 65_536
STEP = 1 << 20

_LONG = frozenset({b"OB", b"OW", b"OF", b"SQ", b"UT", b"UN"})
# groups with which a data set may start: 0002 out of place, 0008, 0010 and big endian's 0008
_STARTS = frozenset({b"\x02\0", b"\x08\0", b"\x10\0", b"\0\x08"})
_CLASS, _INSTANCE, _SYNTAX = 0x0002, 0x0003, 0x0010


@dataclass(frozen=True)
class FileWalk:
    """A whole file. Its class and instance are the data set's; `content_hash` is of the data set's bytes alone."""

    transfer_syntax: str
    sop_class: str
    sop_instance: str
    header: Header
    content_hash: str
    size: int
    # offset of the data set in the file
    start: int
    # meta information and data set name different instances: "" or the reason not to make a result of it
    disagreement: str


def walk_file(
    path: Path, limits: Limits | None = None, storage_classes: Collection[str] | None = None
) -> FileWalk:
    """Walks `path`. Raises Damaged, also where meta information and data set disagree about the SOP class, where the
    SOP class is no storage class or the transfer syntax is not one of ours; OSError if the file can't be read.

    `storage_classes`: what is admitted; by default every standard storage class.
    """
    with path.open("rb") as file:
        head = file.read(132 + MAX_META)
        meta, start = _meta(head)
        if meta is None:
            transfer_syntax = _plausible(head[start : start + 8])
        else:
            transfer_syntax = uid(meta.get(_SYNTAX), "Transfer Syntax UID")
        if transfer_syntax not in contexts.TRANSFER_SYNTAXES:
            raise Damaged("the transfer syntax is not one that this node reads")
        walker = Walker(transfer_syntax, limits)
        digest = hashlib.sha256()
        file.seek(start)
        size = 0
        while piece := file.read(STEP):
            walker.feed(piece)
            digest.update(piece)
            size += len(piece)
            if walker.damage is not None:
                break
    header = walker.finish()
    if header.sop_class not in (contexts.standard_storage() if storage_classes is None else storage_classes):
        raise Damaged("not a storage class that this node knows")
    return FileWalk(
        transfer_syntax=transfer_syntax,
        sop_class=header.sop_class,
        sop_instance=header.sop_instance,
        header=header,
        content_hash=f"sha256:{digest.hexdigest()}",
        size=size,
        start=start,
        disagreement=_disagreement(meta or {}, header),
    )


def _meta(head: bytes) -> tuple[dict[int, bytes] | None, int]:
    """The values of group 0002 by element, and where the data set starts; None if there is no such group."""
    at = 132 if head[128:132] == b"DICM" else 0
    if head[at : at + 2] != b"\x02\0":
        if at and len(head) <= at:
            raise Damaged("the file breaks off before its data set")
        return None, at
    values: dict[int, bytes] = {}
    end = len(head)
    while at < end and head[at : at + 2] == b"\x02\0":
        used = 12 if head[at + 4 : at + 6] in _LONG else 8
        if len(head) < at + used:
            raise Damaged("the file breaks off in its meta information")
        (element,) = struct.unpack_from("<H", head, at + 2)
        (length,) = struct.unpack_from(
            "<L" if used == 12 else "<H", head, at + used - (4 if used == 12 else 2)
        )
        at += used
        if len(head) < at + length:
            raise Damaged("the file's meta information breaks off or lies about a length")
        values[element] = head[at : at + length]
        at += length
        if element == 0 and length == 4:
            end = _end(head, at, values[0])
    return values, at


def _end(head: bytes, at: int, group_length: bytes) -> int:
    """Where group 0002 ends by its own length, if the data set can start there; else as far as its tags go."""
    end: int = at + struct.unpack("<L", group_length)[0]
    return end if end + 2 <= len(head) and head[end : end + 2] in _STARTS else len(head)


def _plausible(first: bytes) -> str:
    """The encoding of a bare data set by its first element. Raises Damaged if that is none of a data set's start."""
    if len(first) == 8:
        little, big = struct.unpack("<H", first[:2])[0], struct.unpack(">H", first[:2])[0]
        is_explicit = first[4:6].isalpha() and first[4:6].isupper()
        if is_explicit and little in {0x0008, 0x0010}:
            return contexts.EXPLICIT_LITTLE
        if is_explicit and big in {0x0008, 0x0010}:
            return contexts.EXPLICIT_BIG
        if little in {0x0008, 0x0010} and first[6:8] == b"\0\0":
            return contexts.IMPLICIT_LITTLE
    raise Damaged("the file does not say how it is encoded")


def _disagreement(meta: dict[int, bytes], header: Header) -> str:
    """Raises Damaged if the SOP classes differ: then nobody knows what the object is."""

    def said(element: int) -> str:
        return meta.get(element, b"").rstrip(b"\0 ").decode("ascii", errors="replace")

    if said(_CLASS) and said(_CLASS) != header.sop_class:
        raise Damaged("meta information and data set name different SOP classes")
    if said(_INSTANCE) and said(_INSTANCE) != header.sop_instance:
        return "meta information and data set name different SOP instances"
    return ""
