"""`hilum audit query`: what is asked of the audit log, and how the answer is printed.

Asking is itself recorded, before the first line is shown. The answer ends with the records that were there when it
was asked, read page by page, so that an export of any size holds up nobody.
"""

import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Literal

from node import show
from node.errors import Misuse
from storage import clock
from storage.audit import EVENTS, About, Actor, Filter, Record, pages
from storage.store import Store

COLUMNS = ("id", "time", "event", "actor", "host", "patient_id", "study", "sop", "outcome", "detail")
Format = Literal["table", "json", "csv"]

_AGO = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
# records a table is made of; a longer answer is several tables
_TABLE_ROWS = 1000


def wanted(
    *,
    since: str = "",
    until: str = "",
    study: str = "",
    sop: str = "",
    ae: str = "",
    event: str = "",
    zone: tzinfo | None = None,
    now: datetime | None = None,
) -> Filter:
    """The filter that a person typed. Raises Misuse for an event or a time that is none."""
    if event and event not in EVENTS:
        raise Misuse(f"--event: there is no event {event!r}; there are {', '.join(EVENTS)}")
    now = now or datetime.now(UTC)
    return Filter(
        since=_time("--since", since, zone, now, end=False),
        until=_time("--until", until, zone, now, end=True),
        study=study,
        sop=sop,
        ae=ae,
        event=event,
    )


def _time(option: str, text: str, zone: tzinfo | None, now: datetime, *, end: bool) -> str:
    """A stamp: of "2026-01-31" (its begin, or as `end` its last moment), of a date with time, or of "2h" ago."""
    text = text.strip()
    if not text:
        return ""
    ago = re.fullmatch(r"(\d{1,6})\s*([smhdw])", text)
    try:
        if ago:
            return clock.stamp(now - timedelta(**{_AGO[ago[2]]: int(ago[1])}))
        moment = datetime.fromisoformat(text)
        if re.fullmatch(r"\d{4}-?\d\d-?\d\d", text):
            moment = datetime.combine(moment, time.max if end else time.min)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone) if zone else moment.astimezone()
        return clock.stamp(moment)
    except (ValueError, OverflowError):
        raise Misuse(
            f"{option}: {text!r} is no time; write 2026-01-31, 2026-01-31T14:30, 2026-01-31T14:30+01:00, "
            "or 30m, 2h, 7d for as long ago"
        ) from None


def query(store: Store, asked: Filter, actor: Actor, form: Format) -> Iterator[Record]:
    """The records that fit, oldest first; the asking is recorded first and is not among them."""
    told = {key: value for key, value in vars(asked).items() if value}
    with store.database.write() as tx:
        last = store.audit.newest(tx)
        about = About(study=asked.study, sop=asked.sop)
        store.audit.record(
            tx, "audit.queried", about=about, actor=actor, detail={"filter": told, "format": form}
        )
    for record in pages(store.audit, store.database.read, asked):
        if record.id > last:
            return
        yield record


def write(records: Iterable[Record], form: Format, zone: tzinfo | None) -> None:
    """Prints them; times are UTC for programs, in `zone` (None: the machine's) with offset for people."""
    if form == "json":
        show.array({column: getattr(record, column) for column in COLUMNS} for record in records)
    elif form == "csv":
        out = csv.writer(sys.stdout, lineterminator="\n")
        out.writerow(COLUMNS)
        for record in records:
            out.writerow([getattr(record, column) for column in COLUMNS[:-1]] + [_compact(record)])
    else:
        rows = []
        for record in records:
            local = show.when(clock.moment(record.time), zone)
            rows.append([record.id, local, *(getattr(record, c) for c in COLUMNS[2:-1]), _compact(record)])
            if len(rows) == _TABLE_ROWS:
                show.table(COLUMNS, rows)
                rows = []
        show.table(COLUMNS, rows)


def _compact(record: Record) -> str:
    return json.dumps(record.detail, ensure_ascii=False, separators=(",", ":")) if record.detail else ""
