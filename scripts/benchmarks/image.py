"""The image that is sent: a DX image of random pixels, encoded once; from image to image only its UIDs change.

Random, since zeros would measure compression; unique UIDs, since repeated ones would measure how duplicates are found.
"""

import math
import random
import struct
from collections.abc import Callable

DX_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
# explicit VRs with a 32-bit length (PS3.5 7.1.2)
_LONG = {b"OW", b"OB"}

Uids = tuple[bytes, bytes, bytes]


def uids(run: str, sender: int, number: int) -> Uids:
    """SOP instance, series and study of an image: 44 characters each, for any `run` of 20 digits."""
    instance, series, study = (f"2.25.1{kind}{run}{sender:05d}{number:012d}".encode() for kind in range(3))
    return instance, series, study


def new_run() -> str:
    return f"{random.SystemRandom().randrange(10**20):020d}"


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    """Explicit VR Little Endian; `value` has an even length."""
    length = struct.pack("<2xL" if vr in _LONG else "<H", len(value))
    return struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr) + length + value


def data_set(size: int, run: str, identity: Uids) -> bytes:
    """A square image of about `size` bytes; the pixels are the last element, and the same for all of a run."""
    instance, series, study = identity
    side = max(4, math.isqrt(max(0, size - 700) // 2))
    before = (
        (0x00080005, b"CS", "ISO_IR 100"),
        (0x00080008, b"CS", r"ORIGINAL\PRIMARY"),
        (0x00080016, b"UI", DX_FOR_PRESENTATION),
        (0x00080018, b"UI", instance.decode()),
        (0x00080020, b"DA", "20200102"),
        (0x00080030, b"TM", "101112"),
        (0x00080050, b"SH", "BENCH-1"),
        (0x00080060, b"CS", "DX"),
        (0x00080068, b"CS", "FOR PRESENTATION"),
        (0x00100010, b"PN", "Bench^Mark"),
        (0x00100020, b"LO", "BENCH-1"),
        (0x00100030, b"DA", "19700101"),
        (0x00100040, b"CS", "O"),
        (0x00180015, b"CS", "CHEST"),
        (0x00185101, b"CS", "PA"),
        (0x0020000D, b"UI", study.decode()),
        (0x0020000E, b"UI", series.decode()),
        (0x00200013, b"IS", "1"),
        (0x00280002, b"US", 1),
        (0x00280004, b"CS", "MONOCHROME2"),
        (0x00280010, b"US", side),
        (0x00280011, b"US", side),
        (0x00280100, b"US", 16),
        (0x00280101, b"US", 16),
        (0x00280102, b"US", 15),
        (0x00280103, b"US", 0),
    )
    head = b"".join(element(tag, vr, _value(vr, value)) for tag, vr, value in before)
    return head + element(0x7FE00010, b"OW", random.Random(run).randbytes(2 * side * side))


def _value(vr: bytes, value: str | int) -> bytes:
    if isinstance(value, int):
        return struct.pack("<H", value)
    padding = b"\0" if vr == b"UI" else b" "
    return value.encode() + padding * (len(value) % 2)


def file(data: bytes, instance: bytes) -> bytes:
    """A whole DICOM file around a data set (PS3.10 7.1), for senders that read files."""
    meta = b"".join(
        (
            element(0x00020001, b"OB", b"\0\1"),
            element(0x00020002, b"UI", _value(b"UI", DX_FOR_PRESENTATION)),
            element(0x00020003, b"UI", instance),
            element(0x00020010, b"UI", _value(b"UI", EXPLICIT_LITTLE)),
            element(0x00020012, b"UI", b"2.25.1"),
        )
    )
    return bytes(128) + b"DICM" + element(0x00020000, b"UL", struct.pack("<L", len(meta))) + meta + data


class Message:
    """A C-STORE-RQ with its data set, framed as P-DATA once; `be` makes it the nth image (PS3.8 9.3.5, PS3.7 9.3.1)."""

    def __init__(
        self,
        size: int,
        run: str,
        sender: int,
        context: int = 1,
        max_pdu: int = 131_072,
        make: Callable[[int, str, Uids], bytes] = data_set,
    ) -> None:
        self._run, self._sender = run, sender
        now = uids(run, sender, 0)
        command = _command(now[0])
        data = memoryview(make(size, run, now))
        step = max_pdu - 6
        fragments = (
            _pdv(context, 2 if at + step >= len(data) else 0, data[at : at + step])
            for at in range(0, len(data), step)
        )
        self.bytes = bytearray().join((_pdv(context, 3, command), *fragments))
        start = bytes(self.bytes[:8192])
        self._message_id = start.index(struct.pack("<HHL", 0, 0x0110, 2)) + 8
        self._places = [(which, at) for which, uid in enumerate(now) for at in _everywhere(start, uid)]
        # the instance in the command too
        assert len(self._places) == 4, "an identifier lies across two PDUs"

    def be(self, number: int) -> None:
        identity = uids(self._run, self._sender, number)
        for which, at in self._places:
            self.bytes[at : at + 44] = identity[which]
        struct.pack_into("<H", self.bytes, self._message_id, number % 65_535 + 1)


def _command(instance: bytes) -> bytes:
    def part(number: int, value: bytes) -> bytes:
        return struct.pack("<HHL", 0, number, len(value)) + value

    body = part(0x0002, _value(b"UI", DX_FOR_PRESENTATION)) + part(0x0100, b"\1\0") + part(0x0110, b"\1\0")
    body += part(0x0700, b"\0\0") + part(0x0800, b"\0\0") + part(0x1000, instance)
    return part(0, struct.pack("<L", len(body))) + body


def _pdv(context: int, control: int, fragment: bytes | memoryview) -> bytes:
    return struct.pack(">BxLLBB", 4, len(fragment) + 6, len(fragment) + 2, context, control) + fragment


def _everywhere(within: bytes, what: bytes) -> list[int]:
    found, at = [], within.find(what)
    while at >= 0:
        found.append(at)
        at = within.find(what, at + 1)
    return found
