"""A DICOM file of ours: in which transfer syntax it is, and where its data set starts (PS3.10 7.1). Without pydicom."""

import os
import struct

_PREAMBLE = 128
# ours have some 400
_MAX_META_BYTES = 4096
_LONG = frozenset({b"OB", b"OW", b"SQ", b"UN", b"UT"})
_TRANSFER_SYNTAX = 0x0010


class NotPart10(ValueError):
    """Not a DICOM file with meta information."""


def read_meta(fd: int) -> tuple[str, int]:
    """Transfer syntax UID, and the data set's offset. Raises NotPart10, OSError."""
    head = os.pread(fd, _PREAMBLE + 4 + _MAX_META_BYTES, 0)
    if head[_PREAMBLE : _PREAMBLE + 4] != b"DICM":
        raise NotPart10("no DICM after the preamble")
    at = _PREAMBLE + 4
    syntax = ""
    while head[at : at + 2] == b"\x02\0":
        if len(head) - at < 12:
            raise NotPart10("the meta information breaks off")
        element, vr, length = struct.unpack_from("<H2sH", head, at + 2)
        start = at + 8
        if vr in _LONG:
            (length,) = struct.unpack_from("<L", head, start)
            start += 4
        at = start + length
        if at > len(head):
            raise NotPart10("the meta information breaks off")
        if element == _TRANSFER_SYNTAX:
            syntax = head[start:at].rstrip(b"\0 ").decode("ascii", "replace")
    if not syntax:
        raise NotPart10("no transfer syntax")
    return syntax, at
