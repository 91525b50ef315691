"""What became of one try to deliver, and what each answer of a destination means: the one table of it.

    the destination has it                 0000, 0111 (it had it before), B0xx (with a warning)     Delivered
    later it may take it                   no connection, no answer in time, a rejected association,
                                           an abort, A7xx; a folder that can't be written            Postponed
    it will not take it without a person   a refused presentation context, every other status        Parked

Statuses: PS3.4 Table B.2-1, PS3.7 Annex C. A peer's Error Comment may name a patient: it is never kept.
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
}


@dataclass(frozen=True)
class Delivered:
    """The destination has it. `status` as it answered, four hex digits; empty where nobody answers."""

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


def _meaning(status: int) -> str:
    if status & 0xF000 == 0xC000:
        return "cannot understand"
    return _MEANINGS.get(status) or _MEANINGS.get(status & 0xFF00) or "no meaning known"
