"""What is printed and filed: a document told once, as text, HTML or PDF.

A paper is sections of facts, sentences, steps and tables. It knows nothing of the audit log; `text`, `html` and `pdf`
each write all of it, and none of them leaves anything out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Literal, TypeAlias

Kind = Literal["", "trouble", "person"]
"""What a step is beside what it says: something went wrong; a person did it."""
MARKS = {"": "", "trouble": "!", "person": "\N{BULLET}"}
"""Beside such a step, for print without colour."""


@dataclass(frozen=True)
class Facts:
    """Names and values, a line each."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    text: str
    is_loud: bool = False


@dataclass(frozen=True)
class Step:
    """Something that happened. `at` is of the zone in which it is shown; `passed`: since the step before."""

    at: datetime
    text: str
    kind: Kind = ""
    passed: str = ""
    # what it is told from: the ids of its records
    records: Sequence[int] = ()


@dataclass(frozen=True)
class Steps:
    rows: Sequence[Step]


@dataclass(frozen=True)
class Table:
    """`numbers`: which columns are set to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()


Block: TypeAlias = Facts | Words | Steps | Table


@dataclass(frozen=True)
class Section:
    """`level` 1 begins a page."""

    title: str
    blocks: Sequence[Block]
    level: Literal[1, 2] = 2


@dataclass(frozen=True)
class Paper:
    """`running` stands at the head of each page of print."""

    title: str
    running: str
    sections: Sequence[Section]


def day(at: datetime) -> str:
    """2026-03-14 (+01:00): a date, and the offset of the times under it."""
    return at.strftime(f"%Y-%m-%d ({offset(at)})")


def by_day(steps: Sequence[Step]) -> list[tuple[str, list[Step]]]:
    """Steps under the days on which they are shown, so that a page that begins within one can say it again."""
    return [(date, list(some)) for date, some in groupby(steps, lambda step: day(step.at))]


def clock(at: datetime) -> str:
    return at.strftime("%H:%M:%S.") + f"{at.microsecond // 1000:03d}"


def moment(at: datetime, *, exact: bool = False) -> str:
    """2026-03-14 10:22:31 +01:00; `exact`: with milliseconds."""
    return f"{at:%Y-%m-%d} {clock(at) if exact else at.strftime('%H:%M:%S')} {offset(at)}"


def offset(at: datetime) -> str:
    """+01:00, of an aware time."""
    found = at.strftime("%z")
    return f"{found[:3]}:{found[3:5]}"


def numbers(ids: Sequence[int], name: str = "") -> str:
    """3, 5-8: rising numbers, runs drawn together."""
    parts: list[list[int]] = []
    for each in ids:
        if parts and each == parts[-1][1] + 1:
            parts[-1][1] = each
        else:
            parts.append([each, each])
    return name + ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in parts)


def lasting(seconds: float) -> str:
    """A duration as people say it: 21 ms, 0.36 s, 42 s, 3 min 20 s, 2 h 05 min, 3 d 4 h."""
    if seconds < 0:
        return f"-{lasting(-seconds)}"
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def counted(number: int, noun: str, plural: str = "") -> str:
    """1 image, 2 images; thousands parted by a comma."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
