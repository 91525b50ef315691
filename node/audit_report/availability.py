"""When the node was up: from its starts and stops in the log. A crash is a start without a stop before it.

How long a crashed node was down nobody recorded: it counts as down since its last sign of life, so that what is said
is never more than what was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from node.audit_report.months import Month
from storage.audit import Filter, Record, pages
from storage.clock import moment, stamp
from storage.store import Store

SHORT_SECONDS = 60.0
"""Shorter interruptions are counted, not listed."""
STOPPED, CRASHED, NOT_YET = "stopped in order", "crash: no stop is recorded", "not started before"
_ALIVE = ("association.", "job.claimed", "job.analyzed", "study.", "delivery.attempted", "delivery.delivered")
"""What only a running node records; a start, and a person at a stopped node, leave other records."""


@dataclass(frozen=True)
class Interruption:
    """Times are UTC. `end` None: it had not come back by the end of the month, or until now."""

    begin: datetime
    end: datetime | None
    cause: str
    seconds: float


@dataclass(frozen=True)
class Availability:
    """Of the part of the month that is over. `share`: 0 to 1; None where the node had never been started.

    `is_least`: there was a crash, so that it was up so long at least.
    """

    share: float | None
    seconds: float
    interruptions: Sequence[Interruption]
    short: int
    starts: int
    is_least: bool


def availability(store: Store, month: Month, now: datetime, *, is_running: bool) -> Availability:
    """`is_running`: whether the node runs at this moment."""
    begin, end = month.begin, min(month.end, now)
    marks = _marks(store, begin, end)
    if not any(mark.event == "node.started" and moment(mark.time) < end for mark in marks):
        return Availability(None, 0.0, [], 0, 0, False)
    down = [one for one in _downs(store, marks, begin, end, now, is_running=is_running) if one.seconds > 0]
    total = (end - _first(marks, begin)).total_seconds()
    lost = sum(one.seconds for one in down if one.cause != NOT_YET)
    crashed = any(one.cause == CRASHED for one in down)
    listed = [one for one in down if one.seconds >= SHORT_SECONDS and one.cause != NOT_YET]
    short = sum(0 < one.seconds < SHORT_SECONDS for one in down)
    starts = sum(mark.event == "node.started" and begin <= moment(mark.time) < end for mark in marks)
    share = max(0.0, 1 - lost / total) if total > 0 else None
    return Availability(share, total, listed, short, starts, crashed)


def _marks(store: Store, begin: datetime, end: datetime) -> list[Record]:
    """Starts and stops of the time, the last one before it and the first one after it, in their order."""
    found: list[Record] = []
    since, until = stamp(begin), stamp(end)
    for event in ("node.started", "node.stopped"):
        found += pages(store.audit, store.database.read, Filter(event=event, since=since, until=until))
        with store.database.read() as tx:
            found += store.audit.page(tx, Filter(event=event, until=since), limit=1, newest=True)
            found += store.audit.page(tx, Filter(event=event, since=until), limit=1)
    by_id = {record.id: record for record in found}
    return [by_id[number] for number in sorted(by_id)]


def _first(marks: Sequence[Record], begin: datetime) -> datetime:
    """Where counting begins: the month's begin, or the node's first start in it."""
    first = moment(marks[0].time)
    return first if marks[0].event == "node.started" and first > begin else begin


def _downs(
    store: Store, marks: Sequence[Record], begin: datetime, end: datetime, now: datetime, *, is_running: bool
) -> list[Interruption]:
    """From each stop, or last sign of life before a crash, to the next start; cut to the time asked for."""
    found: list[Interruption] = []
    before: Record | None = None
    for mark in marks:
        if mark.event == "node.started" and before is not None:
            up = moment(mark.time)
            if before.event == "node.stopped":
                found.append(_cut(moment(before.time), up, STOPPED, begin, end))
            else:
                found.append(_cut(_last_sign(store, before, mark), up, CRASHED, begin, end))
        before = mark
    if before is not None and moment(before.time) < end:
        if before.event == "node.stopped":
            found.append(_cut(moment(before.time), None, STOPPED, begin, end))
        elif not is_running:
            found.append(_cut(_last_sign(store, before, None), None, CRASHED, begin, end))
    return found


def _cut(down: datetime, up: datetime | None, cause: str, begin: datetime, end: datetime) -> Interruption:
    inside = up if up is not None and up <= end else None
    seconds = ((inside or end) - max(down, begin)).total_seconds() if down < end else 0.0
    return Interruption(max(down, begin), inside, cause, max(0.0, seconds))


def _last_sign(store: Store, start: Record, following: Record | None) -> datetime:
    """The last thing that the node did between a start of it and the next; the start itself where there is none."""
    before = following.id if following else 0
    while True:
        with store.database.read() as tx:
            page = store.audit.page(tx, Filter(since=start.time), after=before, limit=200, newest=True)
        for record in page:
            if record.id <= start.id:
                return moment(start.time)
            if record.event.startswith(_ALIVE):
                return moment(record.time)
        if not page:
            return moment(start.time)
        before = page[-1].id
