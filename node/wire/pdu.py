"""Protocol data units of the DICOM upper layer: their bytes, built and taken apart (PS3.8 9.3, PS3.7 Annex D.3).

Big-endian. Knows no socket and no state; what a peer may send when is the business of who reads.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

A_ASSOCIATE_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ = 1, 2, 3
P_DATA_TF, A_RELEASE_RQ, A_RELEASE_RP, A_ABORT = 4, 5, 6, 7

APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"

# A-ABORT: who ends it, and why (9.3.8)
BY_USER, BY_PROVIDER = 0, 2
NO_REASON, UNRECOGNIZED_PDU, UNEXPECTED_PDU, UNEXPECTED_PARAMETER, INVALID_PARAMETER = 0, 1, 2, 5, 6

# the answer to a proposed presentation context (9.3.3.2)
ACCEPTED, USER_REJECTION, NO_REASON_GIVEN, CLASS_REFUSED, SYNTAXES_REFUSED = 0, 1, 2, 3, 4

# message control header (E.2)
COMMAND, LAST = 1, 2

HEADER = struct.Struct(">BxL")
"""Type and length of what follows."""
PDV_HEADER = struct.Struct(">LBB")
"""Length of context, control and fragment; presentation context; control. The fragment is that length less 2."""
HEADERS = struct.Struct(">BxLLBB")
"""Both, for a P-DATA-TF with one fragment."""

_ITEM = struct.Struct(">BxH")
_FIXED = 68


class BadPDU(ValueError):
    """Not the bytes of a PDU; the message holds none of them."""


@dataclass(frozen=True)
class Proposal:
    """One proposed presentation context; UIDs as bytes, without padding."""

    id: int
    abstract: bytes
    syntaxes: tuple[bytes, ...]


@dataclass(frozen=True)
class Role:
    """SCP/SCU role selection of one SOP class (PS3.7 D.3.3.4): may, or does, the requestor take these roles?"""

    scu: bool
    scp: bool


@dataclass(frozen=True)
class Request:
    """A-ASSOCIATE-RQ. `called`, `calling`: 16 bytes as received; `max_length`: 0 is no limit.

    `items`: all behind the fixed part, as it came; the rest of the fields but the first four says the same.
    """

    version: int
    called: bytes
    calling: bytes
    reserved: bytes
    items: bytes
    application_context: bytes
    proposals: tuple[Proposal, ...]
    max_length: int = 0
    roles: Mapping[bytes, Role] = field(default_factory=dict)


@dataclass(frozen=True)
class Accept:
    """A-ASSOCIATE-AC. `syntaxes`: transfer syntax of each accepted context; `refused`: result of each other."""

    syntaxes: Mapping[int, bytes]
    refused: Mapping[int, int]
    max_length: int = 0
    roles: Mapping[bytes, Role] = field(default_factory=dict)


def request(
    called: str,
    calling: str,
    proposals: Iterable[Proposal],
    *,
    max_length: int,
    implementation: tuple[str, str],
    roles: Mapping[bytes, Role] | None = None,
) -> bytes:
    """A-ASSOCIATE-RQ (9.3.2). `implementation`: class UID and version name."""
    body = struct.pack(">HH16s16s32x", 1, 0, _title(called), _title(calling))
    contexts = b"".join(
        _item(
            0x20,
            bytes((proposed.id, 0, 0, 0))
            + _item(0x30, proposed.abstract)
            + b"".join(_item(0x40, syntax) for syntax in proposed.syntaxes),
        )
        for proposed in proposals
    )
    body += (
        _item(0x10, APPLICATION_CONTEXT)
        + contexts
        + user_information(max_length, implementation, roles or {})
    )
    return HEADER.pack(A_ASSOCIATE_RQ, len(body)) + body


def user_information(max_length: int, implementation: tuple[str, str], roles: Mapping[bytes, Role]) -> bytes:
    """Item 50 (9.3.2.3, PS3.7 D.3.3): maximum length, roles, and who we are."""
    class_uid, version = implementation
    chosen = b"".join(
        _item(0x54, struct.pack(">H", len(uid)) + uid + bytes((role.scu, role.scp)))
        for uid, role in roles.items()
    )
    return _item(
        0x50,
        _item(0x51, struct.pack(">L", max_length))
        + _item(0x52, class_uid.encode())
        + chosen
        + _item(0x55, version.encode()),
    )


def accept(asked: Request, items: bytes) -> bytes:
    """A-ASSOCIATE-AC (9.3.3), of `accept_items`; titles and reserved bytes go back as they came."""
    body = b"\0\1\0\0" + asked.called + asked.calling + asked.reserved + items
    return HEADER.pack(A_ASSOCIATE_AC, len(body)) + body


def accept_items(answers: Sequence[tuple[int, int, bytes]], information: bytes) -> bytes:
    """`answers`: context, result, transfer syntax; `information`: `user_information`."""
    contexts = b"".join(
        b"\x21\0"
        + struct.pack(">HBBBBBBH", 8 + len(syntax), number, 0, result, 0, 0x40, 0, len(syntax))
        + syntax
        for number, result, syntax in answers
    )
    return _item(0x10, APPLICATION_CONTEXT) + contexts + information


def reject(result: int, source: int, reason: int) -> bytes:
    """A-ASSOCIATE-RJ (9.3.4)."""
    return HEADER.pack(A_ASSOCIATE_RJ, 4) + bytes((0, result, source, reason))


def release_request() -> bytes:
    return HEADER.pack(A_RELEASE_RQ, 4) + bytes(4)


def release_reply() -> bytes:
    return HEADER.pack(A_RELEASE_RP, 4) + bytes(4)


def abort(source: int, reason: int = NO_REASON) -> bytes:
    """A-ABORT (9.3.8)."""
    return HEADER.pack(A_ABORT, 4) + bytes((0, 0, source, reason))


def message(context: int, command: bytes, data: bytes = b"", max_length: int = 0) -> bytes:
    """A whole message in one piece, each fragment a P-DATA-TF of at most `max_length` bytes (0: no limit)."""
    return b"".join(
        HEADERS.pack(P_DATA_TF, len(piece) + 6, len(piece) + 2, context, control) + piece
        for control, piece in fragments(command, data, max_length)
    )


def fragments(command: bytes, data: bytes, max_length: int) -> Iterator[tuple[int, bytes]]:
    """Control byte and bytes of each fragment of a message in PDUs of at most `max_length` (0: no limit)."""
    yield from _cut(COMMAND, command, max_length)
    if data:
        yield from _cut(0, data, max_length)


def _cut(kind: int, data: bytes, max_length: int) -> Iterator[tuple[int, bytes]]:
    step = max(max_length - PDV_HEADER.size, 1) if max_length else max(len(data), 1)
    for at in range(0, max(len(data), 1), step):
        piece = data[at : at + step]
        last = LAST if at + step >= len(data) else 0
        yield kind | last, piece


def fixed_part(body: bytes) -> tuple[int, bytes, bytes, bytes, bytes]:
    """Version, called, calling, reserved and items of an A-ASSOCIATE-RQ without its header. Raises BadPDU."""
    if len(body) < _FIXED:
        raise BadPDU("an A-ASSOCIATE-RQ that is too short")
    return int.from_bytes(body[:2], "big"), body[4:20], body[20:36], body[36:_FIXED], body[_FIXED:]


def parse_request(body: bytes) -> Request:
    """A-ASSOCIATE-RQ, without the six bytes of its header; unknown items are skipped. Raises BadPDU."""
    version, called, calling, reserved, items = fixed_part(body)
    name, proposals = b"", []
    user = _User()
    for kind, start, end in _items(body, _FIXED, len(body)):
        if kind == 0x20:
            proposals.append(_proposal(body, start, end))
        elif kind == 0x10:
            name = _uid(body, start, end)
        elif kind == 0x50:
            user.read(body, start, end)
    return Request(
        version=version,
        called=called,
        calling=calling,
        reserved=reserved,
        items=items,
        application_context=name,
        proposals=tuple(proposals),
        max_length=user.max_length,
        roles=user.roles,
    )


def parse_accept(body: bytes) -> Accept:
    """A-ASSOCIATE-AC, without the six bytes of its header. Raises BadPDU."""
    if len(body) < _FIXED:
        raise BadPDU("an A-ASSOCIATE-AC that is too short")
    syntaxes, refused = {}, {}
    user = _User()
    for kind, start, end in _items(body, _FIXED, len(body)):
        if kind == 0x21:
            if end - start < 4:
                raise BadPDU("an answer to a presentation context that is too short")
            number, result = body[start], body[start + 2]
            if result != ACCEPTED:
                refused[number] = result
                continue
            syntaxes[number] = next(
                (_uid(body, *at) for inner, *at in _items(body, start + 4, end) if inner == 0x40), b""
            )
        elif kind == 0x50:
            user.read(body, start, end)
    return Accept(syntaxes, refused, user.max_length, user.roles)


def parse_reject(body: bytes) -> tuple[int, int, int]:
    """Result, source and reason of an A-ASSOCIATE-RJ. Raises BadPDU."""
    if len(body) < 4:
        raise BadPDU("an A-ASSOCIATE-RJ that is too short")
    return body[1], body[2], body[3]


class _User:
    """Item 50: what the peer says of itself."""

    def __init__(self) -> None:
        self.max_length = 0
        self.roles: dict[bytes, Role] = {}

    def read(self, body: bytes, start: int, end: int) -> None:
        for kind, at, stop in _items(body, start, end):
            if kind == 0x51:
                if stop - at != 4:
                    raise BadPDU("a maximum length that is no 32-bit number")
                self.max_length = int.from_bytes(body[at:stop], "big")
            elif kind == 0x54:
                length = int.from_bytes(body[at : at + 2], "big")
                if stop - at != 4 + length:
                    raise BadPDU("a role selection that lies about its length")
                uid = _uid(body, at + 2, at + 2 + length)
                self.roles[uid] = Role(bool(body[stop - 2]), bool(body[stop - 1]))


def _proposal(body: bytes, start: int, end: int) -> Proposal:
    if end - start < 4:
        raise BadPDU("a presentation context that is too short")
    abstract, syntaxes = b"", []
    # in place: 128 contexts with 45 transfer syntaxes each come through here
    at = start + 4
    while at < end:
        if end - at < 4:
            raise BadPDU("an item that breaks off")
        kind = body[at]
        stop = at + 4 + (body[at + 2] << 8 | body[at + 3])
        if stop > end:
            raise BadPDU("an item that is longer than what contains it")
        uid = body[at + 4 : stop]
        if uid[-1:] in b"\0 ":
            uid = uid.rstrip(b"\0 ")
        if kind == 0x40:
            syntaxes.append(uid)
        elif kind == 0x30:
            abstract = uid
        at = stop
    return Proposal(body[start], abstract, tuple(syntaxes))


def _items(body: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Type, and where the value starts and ends, of each item."""
    while at < end:
        if end - at < 4:
            raise BadPDU("an item that breaks off")
        kind, length = _ITEM.unpack_from(body, at)
        start, at = at + 4, at + 4 + length
        if at > end:
            raise BadPDU("an item that is longer than what contains it")
        yield kind, start, at


def _uid(body: bytes, start: int, end: int) -> bytes:
    return body[start:end].rstrip(b"\0 ")


def _item(kind: int, body: bytes) -> bytes:
    return _ITEM.pack(kind, len(body)) + body


def _title(title: str) -> bytes:
    return title.encode("ascii", "replace")[:16].ljust(16)
