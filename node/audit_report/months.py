"""Months of the calendar in the time zone of the reports, and those that a person asked for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo

from node.errors import Misuse

MOST = 120
"""Months in a report: ten years."""


@dataclass(frozen=True)
class Month:
    """A month, or what was asked for of it: from `begin` to before `end`, aware times of the reports' zone."""

    begin: datetime
    end: datetime

    @property
    def name(self) -> str:
        """2026-03; where it is not the whole month with its days."""
        whole = self.begin.day == 1 and self.end.day == 1
        last = self.end - timedelta(microseconds=1)
        return f"{self.begin:%Y-%m}" + ("" if whole else f", days {self.begin.day} to {last.day}")


def months(since: str, until: str, now: datetime, zone: tzinfo | None) -> Sequence[Month]:
    """`since`, `until`: 2026-01 or 2026-01-15, both counted whole; empty: the last month that is over.

    Raises Misuse.
    """
    today = now.astimezone(zone).date()
    last = (today.replace(day=1) - timedelta(days=1)).replace(day=1)
    first = _day("--from", since, at_end=False) if since else None
    end = _day("--to", until, at_end=True) if until else None
    if first is None:
        first = (end - timedelta(days=1)).replace(day=1) if end else last
    if end is None:
        end = _next(today) if since else _next(last)
    if end <= first:
        raise Misuse("--from is behind --to: give the earlier one first")
    if first > today:
        raise Misuse("--from: that has not come yet")
    found: list[Month] = []
    while first < end:
        if len(found) == MOST:
            raise Misuse(f"a report has at most {MOST} months: ask for fewer")
        following = min(_next(first), end)
        found.append(Month(_midnight(first, zone), _midnight(following, zone)))
        first = following
    return found


def _day(option: str, text: str, *, at_end: bool) -> date:
    """The day on which it begins; `at_end` the day behind its last."""
    try:
        if re.fullmatch(r"\d{4}-\d\d", text):
            first = date.fromisoformat(f"{text}-01")
            return _next(first) if at_end else first
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            return date.fromisoformat(text) + timedelta(days=int(at_end))
    except (ValueError, OverflowError):
        pass
    raise Misuse(f"{option}: {text!r} is no month; write 2026-01, or a day: 2026-01-15")


def _next(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def _midnight(day: date, zone: tzinfo | None) -> datetime:
    """A day's begin, with the offset that it has then."""
    begin = datetime(day.year, day.month, day.day)
    return begin.replace(tzinfo=zone) if zone else begin.astimezone()
