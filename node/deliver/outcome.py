"""What became of one try to deliver, and what each answer of a destination means: the one table of it.

    the destination has it                 0000, 0111 (it had it before), B0xx (with a warning)     Delivered
                                           HTTP 2xx; STOW-RS: named as stored; HL7 AA, CA
    later it may take it                   no connection, no answer in time, a rejected association,
                                           an abort, A7xx; a folder that can't be written;           Postponed
                                           HTTP 401, 403, 404, 408, 425, 429, 5xx; a
                                           certificate that is not trusted; a secret
                                           that can't be read; HL7 "try later"
    it will not take it without a person   a refused presentation context, every other status        Parked

Statuses: PS3.4 Table B.2-1, PS3.7 Annex C, PS3.18 table 10.5.3-1 and annex I.2.2; RFC 9110; HL7 tables 0008 and 0357.
What else a peer says (an Error Comment, a body) may name a patient: it is never kept.
"""

from dataclasses import dataclass

DUPLICATE = 0x0111

# PS3.7 C.4, C.5 and PS3.4 Table B.2-1, by the status or by its upper byte
_MEANINGS = {
    0x0105: "no such attribute",
    0x0106: "invalid attribute value",
    0x0110: "processing failure",
    0x0112: "no such instance",
    0x0117: "invalid instance",
    0x0122: "SOP class not supported",
    0x0124: "not authorized",
    0x0210: "duplicate invocation",
    0x0211: "unrecognized operation",
    0x0212: "mistyped argument",
    0x0213: "resource limitation",
    0xA700: "out of resources",
    0xA900: "data set does not match SOP class",
    0xC122: "transfer syntax not supported",
}
# RFC 9110 15 and RFC 6585: what the status says, and where a person looks
_HTTP = {
    400: "bad request: not understood as it was sent",
    401: "not authenticated: look at user and password_file, or token_file",
    403: "forbidden: this user may not store there",
    404: "not found: look at url",
    405: "method not allowed: look at url",
    406: "not acceptable: no answer in a form that Hilum reads",
    408: "request timeout",
    409: "conflict: not stored",
    411: "length required",
    413: "too large",
    415: "media type not taken there",
    422: "content not accepted",
    425: "too early",
    429: "too many requests",
    500: "internal error",
    502: "bad gateway",
    503: "not available now",
    504: "gateway timeout",
    507: "out of storage",
}
# 401, 403, 404: of the destination, not of this result; it goes on once somebody has put right secret, right or address
_HTTP_LATER = {401, 403, 404, 408, 425, 429}
# HL7 table 0008; the enhanced mode's C. stand for the same
_HL7 = {"AA": "accept", "AE": "application error", "AR": "rejected"}
# HL7 table 0357
_HL7_ERRORS = {
    "100": "segment sequence error",
    "101": "required field missing",
    "102": "data type error",
    "103": "table value not found",
    "200": "unsupported message type",
    "201": "unsupported event code",
    "202": "unsupported processing id",
    "203": "unsupported version id",
    "204": "unknown key identifier",
    "205": "duplicate key identifier",
    "206": "application record locked",
    "207": "application internal error",
}
# a reject for these says nothing about the message (HL7 v2.5.1 2.9.2.1)
_HL7_LATER = {"206", "207"}


@dataclass(frozen=True)
class Delivered:
    """The destination has it. `status` as it answered: four hex digits (DIMSE), three digits (HTTP), two letters (HL7);
    empty where nobody answers."""

    status: str = ""


@dataclass(frozen=True)
class Postponed:
    """It did not get through; it is tried again without end."""

    reason: str


@dataclass(frozen=True)
class Parked:
    """It needs a person. `reached`: did the destination answer? None: it was not tried."""

    reason: str
    reached: bool | None = True


Outcome = Delivered | Postponed | Parked


def of_status(status: int) -> Outcome:
    """What the status of a C-STORE-RSP means."""
    shown = f"{status:04X}"
    if status in {0x0000, DUPLICATE} or status & 0xFF00 == 0xB000:
        return Delivered(shown)
    answer = f"the destination answered {shown} ({_meaning(status)})"
    return Postponed(answer) if status & 0xFF00 == 0xA700 else Parked(answer)


def of_failure(reason: int) -> Outcome:
    """What the Failure Reason means with which STOW-RS did not store an instance: never that it did, but for 0111."""
    if reason == DUPLICATE:
        return Delivered(f"{reason:04X}")
    answer = f"the destination did not store it: {reason & 0xFFFF:04X} ({_meaning(reason)})"
    return Postponed(answer) if reason & 0xFF00 == 0xA700 else Parked(answer)


def of_http(status: int) -> Outcome:
    """What the status of an HTTP response means, where its body says nothing."""
    if 200 <= status <= 299:
        return Delivered(str(status))
    if 300 <= status <= 399:
        meaning = "a redirect, which is not followed: write the final address as url"
    else:
        meaning = _HTTP.get(status, "no meaning known")
    answer = f"the destination answered {status} ({meaning})"
    return Postponed(answer) if status in _HTTP_LATER or 500 <= status <= 599 else Parked(answer)


def of_acknowledgement(code: str, error: str) -> Outcome:
    """What MSA-1 means (AA, AE, AR, or CA, CE, CR), with the first code of ERR-3."""
    if code not in {f"{mode}{answer[1]}" for mode in "AC" for answer in _HL7}:
        return Parked("the destination answered no acknowledgement code")
    if code[1] == "A":
        return Delivered(code)
    told = f"; {error}: {_HL7_ERRORS[error]}" if error in _HL7_ERRORS else ""
    answer = f"the destination answered {code} ({_HL7['A' + code[1]]}{told})"
    return Postponed(answer) if code[1] == "R" and error in _HL7_LATER else Parked(answer)


def _meaning(status: int) -> str:
    if status in _MEANINGS:
        return _MEANINGS[status]
    if status & 0xF000 == 0xC000:
        return "cannot understand"
    return _MEANINGS.get(status & 0xFF00, "no meaning known")
