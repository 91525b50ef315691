"""DIMSE command sets: always Implicit VR Little Endian, few elements, at most 64 KiB (PS3.7 6.3.1, 9.3, E.1)."""

import struct
from collections.abc import Mapping

C_STORE_RQ = 0x0001
C_STORE_RSP = 0x8001
C_ECHO_RQ = 0x0030
C_CANCEL_RQ = 0x0FFF
N_EVENT_REPORT_RQ = 0x0100
N_ACTION_RQ = 0x0130
# set in the command field of every response
RESPONSE = 0x8000
NO_DATA_SET = 0x0101

SUCCESS = 0x0000
UNRECOGNIZED_OPERATION = 0x0211

AFFECTED_CLASS = 0x0002
COMMAND_FIELD = 0x0100
MESSAGE_ID = 0x0110
RESPONDS_TO = 0x0120
DATA_SET_TYPE = 0x0800
STATUS = 0x0900
ERROR_COMMENT = 0x0902
AFFECTED_INSTANCE = 0x1000

MAX_BYTES = 65_536
MAX_COMMENT = 64


class BadCommand(ValueError):
    """Not a command set."""


def parse(data: bytes | bytearray) -> dict[int, bytes]:
    """Element number -> value of a whole command set. Raises BadCommand."""
    values: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if len(data) - at < 8:
            raise BadCommand("breaks off in an element's header")
        group, element, length = struct.unpack_from("<HHL", data, at)
        at += 8
        if group != 0 or length > len(data) - at:
            raise BadCommand("an element of another group, or longer than the command")
        values[element] = bytes(data[at : at + length])
        at += length
    return values


def number(values: Mapping[int, bytes], element: int) -> int:
    """A US value. Raises BadCommand if it is missing or of another size."""
    value = values.get(element, b"")
    if len(value) != 2:
        raise BadCommand(f"(0000,{element:04X}) is missing or no US")
    return int.from_bytes(value, "little")


def store_response(request: Mapping[int, bytes], status: int, comment: str = "") -> bytes:
    """C-STORE-RSP (PS3.7 9.3.1.2) to a parsed request; its UIDs go back as they came, at most 64 bytes of each."""
    extra = {
        AFFECTED_CLASS: _uid(request.get(AFFECTED_CLASS, b"")),
        AFFECTED_INSTANCE: _uid(request.get(AFFECTED_INSTANCE, b"")),
    }
    if comment:
        extra[ERROR_COMMENT] = _even(comment[:MAX_COMMENT].encode("ascii", "replace"), b" ")
    return _response(request, C_STORE_RSP, status, extra)


def response(request: Mapping[int, bytes], status: int, extra: Mapping[int, bytes] | None = None) -> bytes:
    """The response without data set to any other parsed request (PS3.7 9.3.5, 10.3); `extra`: further elements."""
    return _response(request, number(request, COMMAND_FIELD) | RESPONSE, status, extra or {})


def _response(request: Mapping[int, bytes], field: int, status: int, extra: Mapping[int, bytes]) -> bytes:
    elements = {
        COMMAND_FIELD: struct.pack("<H", field),
        RESPONDS_TO: struct.pack("<H", number(request, MESSAGE_ID)),
        DATA_SET_TYPE: struct.pack("<H", NO_DATA_SET),
        STATUS: struct.pack("<H", status),
        **extra,
    }
    if AFFECTED_CLASS in request:
        elements[AFFECTED_CLASS] = _uid(request[AFFECTED_CLASS])
    return encode(elements)


def encode(elements: Mapping[int, bytes]) -> bytes:
    """A command set of elements of even length, in order of their numbers, behind its group length."""
    body = b"".join(
        struct.pack("<HHL", 0, element, len(value)) + value for element, value in sorted(elements.items())
    )
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def _uid(value: bytes) -> bytes:
    return _even(value.rstrip(b"\0 ")[:64], b"\0")


def _even(value: bytes, padding: bytes) -> bytes:
    return value + padding if len(value) % 2 else value
