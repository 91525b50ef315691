"""Storage commitment (PS3.4 Annex J): its UIDs, its messages' command sets, and their data sets, built and taken apart.

    N-ACTION-RQ        Transaction UID, Referenced SOP Sequence                               "will you keep these?"
    N-EVENT-REPORT-RQ  the same: those that are kept; Failed SOP Sequence: those that are not, and why

The few elements are written by hand, in Implicit and Explicit VR Little Endian: the receiver loads no DICOM library,
and what comes over the wire is bounded here.
"""

import re
import struct
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from node.wire import command
from node.wire.contexts import EXPLICIT_LITTLE, IMPLICIT_LITTLE, STORAGE_COMMITMENT

PUSH_MODEL = STORAGE_COMMITMENT
WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
SYNTAXES = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)

REQUEST_COMMITMENT = 1
"""The one action type (J.3.2.1)."""
ALL_COMMITTED, SOME_FAILED = 1, 2
"""The event types (J.3.3.1)."""

# elements of their command sets beside those of `command` (PS3.7 E.1)
REQUESTED_CLASS = 0x0003
REQUESTED_INSTANCE = 0x1001
EVENT_TYPE = 0x1002
ACTION_TYPE = 0x1008

# statuses of N-ACTION-RSP and N-EVENT-REPORT-RSP (PS3.7 10.1.1.1.8, 10.1.4.1.10)
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
NO_SUCH_EVENT_TYPE = 0x0113
NO_SUCH_ARGUMENT = 0x0114
INVALID_ARGUMENT = 0x0115
NO_SUCH_CLASS = 0x0118
CLASS_CONFLICT = 0x0119
NO_SUCH_ACTION = 0x0123
RESOURCE_LIMITATION = 0x0213

# Failure Reason (PS3.3 C.14.1.1) and status alike, in our own words
_MEANINGS = {
    PROCESSING_FAILURE: "processing failure",
    NO_SUCH_INSTANCE: "no such object there",
    NO_SUCH_EVENT_TYPE: "no such event type",
    NO_SUCH_ARGUMENT: "no such argument",
    INVALID_ARGUMENT: "invalid argument",
    0x0117: "invalid object instance",
    NO_SUCH_CLASS: "no such SOP class",
    CLASS_CONFLICT: "stored there under another SOP class",
    0x0122: "SOP class not supported",
    NO_SUCH_ACTION: "no such action type",
    0x0124: "not authorized",
    0x0131: "transaction UID used before",
    0x0210: "duplicate invocation",
    command.UNRECOGNIZED_OPERATION: "unrecognized operation",
    0x0212: "mistyped argument",
    RESOURCE_LIMITATION: "out of resources",
}

_TRANSACTION = (0x0008, 0x1195)
_FAILED = (0x0008, 0x1198)
_REFERENCED = (0x0008, 0x1199)
_CLASS = (0x0008, 0x1150)
_INSTANCE = (0x0008, 0x1155)
_REASON = (0x0008, 0x1197)

_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
# deeper nesting has no place in these messages
_MAX_DEPTH = 8
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")

Tag = tuple[int, int]


class BadArgument(ValueError):
    """Not the data set of such a message. `status`: what the message is answered; the text holds none of its bytes."""

    def __init__(self, reason: str, status: int = INVALID_ARGUMENT) -> None:
        super().__init__(reason)
        self.status = status


class Reference(NamedTuple):
    """One instance, by SOP Class and SOP Instance UID."""

    sop_class: str
    sop_instance: str


class Failure(NamedTuple):
    """One instance that is not committed; `reason`: Failure Reason."""

    sop_class: str
    sop_instance: str
    reason: int


@dataclass(frozen=True)
class Said:
    """What a data set says: of an N-ACTION `referenced` alone; of an N-EVENT-REPORT those that are committed."""

    transaction: str
    referenced: Sequence[Reference] = ()
    failed: Sequence[Failure] = ()

    @property
    def event_type(self) -> int:
        return SOME_FAILED if self.failed else ALL_COMMITTED

    @property
    def committed(self) -> set[tuple[str, str]]:
        """Class and instance of those that a report names as committed."""
        return {(named.sop_class, named.sop_instance) for named in self.referenced}

    @property
    def failures(self) -> dict[tuple[str, str], str]:
        """Class and instance of those that a report names as failed, and why, in our own words."""
        return {(named.sop_class, named.sop_instance): meaning(named.reason) for named in self.failed}


def action() -> dict[int, bytes]:
    """The elements of an N-ACTION-RQ (PS3.7 10.3.4.1) but for its message id and data set type."""
    return {
        REQUESTED_CLASS: _padded(PUSH_MODEL),
        command.COMMAND_FIELD: _us(command.N_ACTION_RQ),
        REQUESTED_INSTANCE: _padded(WELL_KNOWN_INSTANCE),
        ACTION_TYPE: _us(REQUEST_COMMITMENT),
    }


def new_transaction() -> str:
    """A transaction UID that nobody can guess: whoever names it has heard it from us."""
    return f"2.25.{uuid.uuid4().int}"


def meaning(reason: int) -> str:
    """`0112 (no such object there)`."""
    return f"{reason & 0xFFFF:04X} ({_MEANINGS.get(reason, 'no meaning known')})"


def report(event_type: int) -> dict[int, bytes]:
    """The elements of an N-EVENT-REPORT-RQ (PS3.7 10.3.1.1) but for its message id and data set type."""
    return {
        command.AFFECTED_CLASS: _padded(PUSH_MODEL),
        command.COMMAND_FIELD: _us(command.N_EVENT_REPORT_RQ),
        command.AFFECTED_INSTANCE: _padded(WELL_KNOWN_INSTANCE),
        EVENT_TYPE: _us(event_type),
    }


def response(request: Mapping[int, bytes], status: int) -> bytes:
    """The command set that answers a parsed N-ACTION-RQ or N-EVENT-REPORT-RQ; without data set."""
    extra = {
        command.AFFECTED_CLASS: _padded(PUSH_MODEL),
        command.AFFECTED_INSTANCE: _padded(WELL_KNOWN_INSTANCE),
    }
    for element in (EVENT_TYPE, ACTION_TYPE):
        if len(request.get(element, b"")) == 2:
            extra[element] = request[element]
    return command.response(request, status, extra)


def action_of(values: Mapping[int, bytes], data: bytes, syntax: str) -> Said:
    """What an N-ACTION-RQ asks for. Raises BadArgument."""
    _check(values, REQUESTED_CLASS, REQUESTED_INSTANCE)
    if values.get(ACTION_TYPE) != _us(REQUEST_COMMITMENT):
        raise BadArgument("another action type", NO_SUCH_ACTION)
    said = parse(data, syntax)
    if not said.referenced:
        raise BadArgument("no instance is named", NO_SUCH_ARGUMENT)
    return said


def report_of(values: Mapping[int, bytes], data: bytes, syntax: str) -> Said:
    """What an N-EVENT-REPORT-RQ reports. Raises BadArgument."""
    _check(values, command.AFFECTED_CLASS, command.AFFECTED_INSTANCE)
    if values.get(EVENT_TYPE) not in (_us(ALL_COMMITTED), _us(SOME_FAILED)):
        raise BadArgument("another event type", NO_SUCH_EVENT_TYPE)
    return parse(data, syntax)


def _check(values: Mapping[int, bytes], sop_class: int, instance: int) -> None:
    if values.get(sop_class, b"").rstrip(b"\0 ") != PUSH_MODEL.encode():
        raise BadArgument("another SOP class", NO_SUCH_CLASS)
    if values.get(instance, b"").rstrip(b"\0 ") != WELL_KNOWN_INSTANCE.encode():
        raise BadArgument("another SOP instance", NO_SUCH_INSTANCE)


def encode(said: Said, syntax: str) -> bytes:
    """The data set in one of SYNTAXES."""
    explicit = syntax == EXPLICIT_LITTLE
    parts = [_element(_TRANSACTION, b"UI", _padded(said.transaction), explicit)]
    if said.failed:
        parts.append(_sequence(_FAILED, said.failed, explicit))
    if said.referenced:
        parts.append(_sequence(_REFERENCED, said.referenced, explicit))
    return b"".join(parts)


def parse(data: bytes, syntax: str) -> Said:
    """What a data set in one of SYNTAXES says; other elements are skipped. Raises BadArgument."""
    explicit = syntax == EXPLICIT_LITTLE
    try:
        return _said(data, explicit)
    except struct.error:
        raise BadArgument("the data set breaks off") from None


def _said(data: bytes, explicit: bool) -> Said:
    transaction, referenced, failed = "", [], []
    for tag, start, end in _elements(data, 0, len(data), explicit, 0):
        if tag == _TRANSACTION:
            transaction = _uid(data[start:end])
        elif tag == _REFERENCED:
            referenced = [Reference(*_pair(item)) for item in _sequence_items(data, start, end, explicit)]
        elif tag == _FAILED:
            failed = [
                Failure(*_pair(item), _number(item)) for item in _sequence_items(data, start, end, explicit)
            ]
    if not transaction:
        raise BadArgument("no transaction UID", NO_SUCH_ARGUMENT)
    if not referenced and not failed:
        raise BadArgument("no instance is named", NO_SUCH_ARGUMENT)
    return Said(transaction, referenced, failed)


def _sequence_items(data: bytes, start: int, end: int, explicit: bool) -> Iterator[dict[Tag, bytes]]:
    for at, stop in _items(data, start, end, explicit, 1):
        yield {
            tag: data[begin:finish]
            for tag, begin, finish in _elements(data, at, stop, explicit, 2)
            if tag in (_CLASS, _INSTANCE, _REASON)
        }


def _pair(item: dict[Tag, bytes]) -> tuple[str, str]:
    return _uid(item.get(_CLASS, b"")), _uid(item.get(_INSTANCE, b""))


def _number(item: dict[Tag, bytes]) -> int:
    """Failure Reason; a report that names none (it is type 1) still says that the instance is not committed."""
    value = item.get(_REASON, b"")
    return int.from_bytes(value, "little") if len(value) == 2 else PROCESSING_FAILURE


def _uid(value: bytes) -> str:
    text = value.rstrip(b"\0 ").decode("ascii", "replace")
    if len(text) > 64 or not _UID.fullmatch(text):
        raise BadArgument("a UID that is missing or none")
    return text


def _elements(data: bytes, at: int, end: int, explicit: bool, depth: int) -> Iterator[tuple[Tag, int, int]]:
    """Tag, and where the value begins and ends, of each element; up to an item's delimiter, if one comes."""
    while at < end:
        tag, start, stop, after = _next(data, at, end, explicit, depth)
        if tag == _ITEM_END:
            return
        yield tag, start, stop
        at = after


def _next(data: bytes, at: int, end: int, explicit: bool, depth: int) -> tuple[Tag, int, int, int]:
    """Tag of the element at `at`, where its value begins and ends, and where the next element begins."""
    group, number = struct.unpack_from("<HH", data, at)
    tag = (group, number)
    if explicit and group != 0xFFFE:
        vr = data[at + 4 : at + 6]
        if vr in _LONG:
            (length,) = struct.unpack_from("<L", data, at + 8)
            start = at + 12
        else:
            (length,) = struct.unpack_from("<H", data, at + 6)
            start = at + 8
    else:
        vr = b""
        (length,) = struct.unpack_from("<L", data, at + 4)
        start = at + 8
    if length != _UNDEFINED:
        stop = start + length
        after = stop
    elif group == 0xFFFE:
        raise BadArgument("an item where none may be")
    else:
        # an unknown VR of undefined length holds Implicit VR (PS3.5 6.2.2)
        stop, after = _end_of_sequence(data, start, end, explicit and vr != b"UN", depth)
    if after > end:
        raise BadArgument("an element that is longer than what contains it")
    return tag, start, stop, after


def _end_of_sequence(data: bytes, at: int, end: int, explicit: bool, depth: int) -> tuple[int, int]:
    """Where the sequence of undefined length ends, without and with its delimiter."""
    if depth >= _MAX_DEPTH:
        raise BadArgument("sequences too deep")
    while True:
        group, number, length = struct.unpack_from("<HHL", data, at)
        if (group, number) == _SEQUENCE_END:
            return at, at + 8
        if (group, number) != _ITEM:
            raise BadArgument("a sequence that holds no items")
        at = at + 8 + length if length != _UNDEFINED else _end_of_item(data, at + 8, end, explicit, depth)
        if at > end:
            raise BadArgument("an item that is longer than what contains it")


def _end_of_item(data: bytes, at: int, end: int, explicit: bool, depth: int) -> int:
    while True:
        tag, _, _, at = _next(data, at, end, explicit, depth + 1)
        if tag == _ITEM_END:
            return at


def _items(data: bytes, at: int, end: int, explicit: bool, depth: int) -> Iterator[tuple[int, int]]:
    """Where each item's elements begin and end."""
    while at < end:
        group, number, length = struct.unpack_from("<HHL", data, at)
        if (group, number) != _ITEM:
            raise BadArgument("a sequence that holds no items")
        start = at + 8
        at = start + length if length != _UNDEFINED else _end_of_item(data, start, end, explicit, depth)
        if at > end:
            raise BadArgument("an item that is longer than what contains it")
        yield start, at


def _sequence(tag: Tag, items: Iterable[Reference | Failure], explicit: bool) -> bytes:
    encoded = []
    for item in items:
        body = _element(_CLASS, b"UI", _padded(item.sop_class), explicit)
        body += _element(_INSTANCE, b"UI", _padded(item.sop_instance), explicit)
        if isinstance(item, Failure):
            body += _element(_REASON, b"US", _us(item.reason), explicit)
        encoded.append(struct.pack("<HHL", *_ITEM, len(body)) + body)
    return _element(tag, b"SQ", b"".join(encoded), explicit)


def _element(tag: Tag, vr: bytes, value: bytes, explicit: bool) -> bytes:
    if not explicit:
        return struct.pack("<HHL", *tag, len(value)) + value
    if vr in _LONG:
        return struct.pack("<HH2sHL", *tag, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", *tag, vr, len(value)) + value


def _us(value: int) -> bytes:
    return struct.pack("<H", value & 0xFFFF)


def _padded(uid: str) -> bytes:
    raw = uid.encode("ascii")
    return raw + b"\0" * (len(raw) % 2)
