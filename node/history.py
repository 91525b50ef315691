"""`hilum audit query`: what is asked of the audit log. How the answer is written: `node.history_formats`.

Asking is itself recorded, before the first line is shown; where the log does not take that record, nothing is
answered. The answer ends with the records that were there when it was asked, read page by page, so that an export of
any size holds up nobody.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Any

from node.errors import Misuse
from storage import clock
from storage.audit import EVENTS, PAGE, About, Actor, Filter, Patient, Record
from storage.store import Store

COLUMNS = (
    "id", "time", "event", "actor", "host", "patient_id", "study", "sop", "outcome", "detail", "certificate",
)  # fmt: skip

_AGO = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_IDENTIFIERS = ("patient", "name", "accession")


@dataclass(frozen=True)
class Question:
    """What is asked. `limit` 0: every record. `after`: an id; with `newest` the answer goes down from it."""

    filter: Filter = field(default_factory=Filter)
    limit: int = 0
    after: int = 0
    newest: bool = False


def wanted(
    *,
    since: str = "",
    until: str = "",
    zone: tzinfo | None = None,
    now: datetime | None = None,
    event: str = "",
    **others: str,
) -> Filter:
    """The filter that a person typed; `others`: further fields of it. Raises Misuse for an event or a time that
    is none."""
    if event and event not in EVENTS:
        raise Misuse(f"--event: there is no event {event!r}; there are {', '.join(EVENTS)}")
    now = now or datetime.now(UTC)
    return Filter(
        since=_time("--since", since, zone, now, end=False),
        until=_time("--until", until, zone, now, end=True),
        event=event,
        **{key: typed(f"--{key}", value) for key, value in others.items()},
    )


def typed(option: str, value: str) -> str:
    """The option's value; for `-` a line of standard input, since anybody on the machine can read a command line."""
    if value == "-":
        if sys.stdin.isatty():
            print(f"{option.removeprefix('--')}: ", end="", file=sys.stderr, flush=True)
        value = sys.stdin.readline().rstrip("\r\n")
        if not value:
            raise Misuse(
                f"{option}: standard input holds no line; write `{option} -` and give the value there"
            )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Misuse(f"{option}: the value is no UTF-8") from None
    return value


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


class Answer:
    """The records that fit, one after the other. `more`: once they were read, the id to go on after where the limit
    left some; else 0."""

    def __init__(self, store: Store, question: Question, last: int) -> None:
        self.more = 0
        self._store = store
        self._question = question
        # nothing younger than the question; the question's own record is
        self._last = last

    def __iter__(self) -> Iterator[Record]:
        limit, given, last_id = self._question.limit, 0, 0
        for record in self._all():
            if limit and given == limit:
                self.more = last_id
                return
            yield record
            given, last_id = given + 1, record.id

    def _all(self) -> Iterator[Record]:
        asked = self._question
        after = min(asked.after or self._last + 1, self._last + 1) if asked.newest else asked.after
        # one more than asked for tells whether there are more
        most = min(PAGE, asked.limit + 1) if asked.limit else PAGE
        while True:
            with self._store.database.read() as tx:
                page = self._store.audit.page(tx, asked.filter, after=after, limit=most, newest=asked.newest)
            for record in page:
                if record.id > self._last:
                    return
                yield record
            if len(page) < most:
                return
            after = page[-1].id


def ask(store: Store, question: Question, actor: Actor, form: str, *, leaves: bool) -> Answer:
    """Records who asks what, then answers. `leaves`: the records go into a file or to another program, which is an
    export. Raises Unavailable: then nothing was asked.

    Of a patient's identifiers the record has the keyed hashes alone, and is about them: whoever follows a patient's
    story finds who asked about her.
    """
    asked = question.filter
    keys = store.audit.keys_of(Patient(asked.patient, asked.name, asked.accession))
    about = About(keys, asked.study, asked.sop)
    told = _told(question, {"patient": keys.id, "name": keys.name, "accession": keys.accession})
    with store.database.write() as tx:
        last = store.audit.newest(tx)
        if leaves:
            detail = {"filter": told, "format": form, "what": "records"}
            store.audit.record(tx, "audit.exported", about=about, actor=actor, detail=detail)
        else:
            detail = {"filter": told, "format": form}
            store.audit.record(tx, "audit.queried", about=about, actor=actor, detail=detail)
    return Answer(store, question, last)


def _told(question: Question, keys: Mapping[str, str]) -> dict[str, Any]:
    """The question as its record has it."""
    pages = {"limit": question.limit, "after": question.after, "newest": question.newest}
    told = {**vars(question.filter), **{kind: keys[kind] for kind in _IDENTIFIERS}, **pages}
    return {key: value for key, value in told.items() if value}
