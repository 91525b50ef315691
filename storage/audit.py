"""The audit log: a record for each thing that happens, in the transaction of the thing itself.

A record's payload is canonical JSON; it carries keyed hashes of a patient's identifiers, whose values lie apart in
`audit_identity` and can be erased without touching the record. Triggers refuse every change of a record.
"""

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, func, select

from storage.clock import Clock
from storage.prepared import Prepared, inserting
from storage.schema import audit, audit_identity

EVENTS = (
    "association.accepted", "association.refused", "association.aborted",
    "object.received", "object.repeated", "object.conflict", "object.refused",
    "job.queued", "job.claimed", "job.skipped", "job.analyzed", "job.parked", "job.retried", "job.discarded",
    "study.waiting", "study.claimed", "study.reported", "study.parked",
    "result.made", "result.quarantined",
    "delivery.attempted", "delivery.delivered", "delivery.committed", "delivery.parked", "delivery.retried",
    "delivery.discarded", "delivery.returned",
    "commitment.requested", "commitment.refused", "commitment.failed", "commitment.asked", "commitment.reported",
    "object.expired",
    "node.started", "node.stopped", "node.recovered",
    "config.changed", "audit.queried",
)  # fmt: skip

OUTCOMES = ("success", "failure")
_KNOWN = frozenset(EVENTS)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
_RECORD = Prepared(inserting(audit, *(column.name for column in audit.c if column.name != "id")))
_IDENTIFY = Prepared(lambda count: inserting(audit_identity)(count).on_conflict_do_nothing())
PAGE = 1000


@dataclass(frozen=True)
class Patient:
    """What identifies a patient or a visit, as received. Leaves this module only as keyed hashes."""

    id: str = ""
    name: str = ""
    accession: str = ""


@dataclass(frozen=True)
class PatientKeys:
    """Keyed hashes (hex; empty where the value is) that stand for a patient's identifiers."""

    id: str = ""
    name: str = ""
    accession: str = ""


@dataclass(frozen=True)
class About:
    """Whom and what a record is about: the patient's keys, the study's and the SOP instance's UID."""

    patient: PatientKeys = PatientKeys()
    study: str = ""
    sop: str = ""


@dataclass(frozen=True)
class Actor:
    """Who did it: an AE title, a process of ours or an OS user; and from which host."""

    name: str = "hilum"
    host: str = ""


@dataclass(frozen=True)
class Entry:
    """One record to be written. `detail` holds no patient data."""

    event: str
    about: About = About()
    actor: Actor = Actor()
    outcome: str = "success"
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Filter:
    """What `query` returns: records that fit every field that is given. Times are stamps (`storage.clock`)."""

    since: str = ""
    until: str = ""
    study: str = ""
    sop: str = ""
    ae: str = ""
    event: str = ""


@dataclass(frozen=True)
class Record:
    """One record as people read it."""

    id: int
    time: str
    event: str
    actor: str
    host: str
    patient_id: str
    study: str
    sop: str
    outcome: str
    detail: dict[str, Any] = field(default_factory=dict)


class Audit:
    """Writes and reads records. `key` (32 bytes) hashes identifiers; it never leaves the data folder."""

    def __init__(self, key: bytes, clock: Clock) -> None:
        self._key = key
        self._clock = clock

    def key_of(self, kind: str, value: str) -> str:
        """HMAC-SHA256, hex, of one identifier; empty for an empty one."""
        return hmac.digest(self._key, f"{kind}\0{value}".encode(), "sha256").hex() if value else ""

    def keys_of(self, patient: Patient) -> PatientKeys:
        return PatientKeys(
            id=self.key_of("patient_id", patient.id),
            name=self.key_of("patient_name", patient.name),
            accession=self.key_of("accession", patient.accession),
        )

    def identify(self, tx: Connection, patient: Patient) -> PatientKeys:
        """The patient's keys; their values are put down in `audit_identity` if they are new."""
        return self.identify_all(tx, [patient])[0]

    def identify_all(self, tx: Connection, patients: Sequence[Patient]) -> list[PatientKeys]:
        """`identify` of several, in their order."""
        found = [self.keys_of(patient) for patient in patients]
        rows = {
            key: {"key": key, "kind": kind, "value": value}
            for keys, patient in zip(found, patients, strict=True)
            for key, kind, value in (
                (keys.id, "patient_id", patient.id),
                (keys.name, "patient_name", patient.name),
                (keys.accession, "accession", patient.accession),
            )
            if key
        }
        if rows:
            _IDENTIFY.run(tx, list(rows.values()))
        return found

    def record(
        self,
        tx: Connection,
        event: str,
        *,
        about: About = About(),
        actor: Actor = Actor(),
        outcome: str = "success",
        detail: dict[str, Any] | None = None,
    ) -> None:
        """Writes one record into the caller's transaction. `detail` holds no patient data. Raises Unavailable."""
        self.record_all(tx, [Entry(event, about, actor, outcome, detail or {})])

    def record_all(self, tx: Connection, entries: Sequence[Entry]) -> None:
        """Writes records into the caller's transaction, in their order, at one time. Raises Unavailable."""
        if entries:
            time = self._clock.stamp()
            _RECORD.run(tx, [_row(entry, time) for entry in entries])

    def newest(self, tx: Connection) -> int:
        """The id of the last record; 0 where there is none."""
        return tx.execute(select(func.max(audit.c.id))).scalar() or 0

    def count(self, tx: Connection, event: str) -> int:
        """How often something happened."""
        return tx.execute(select(func.count()).select_from(audit).where(audit.c.event == event)).scalar_one()

    def page(self, tx: Connection, wanted: Filter, *, after: int = 0, limit: int = PAGE) -> list[Record]:
        """At most `limit` records with ids above `after`, oldest first."""
        query = (
            select(audit.c.id, audit.c.payload, audit_identity.c.value)
            .join_from(audit, audit_identity, audit.c.patient == audit_identity.c.key, isouter=True)
            .where(audit.c.id > after)
            .order_by(audit.c.id)
            .limit(limit)
        )
        for given, condition in (
            (wanted.since, audit.c.time >= wanted.since),
            (wanted.until, audit.c.time <= wanted.until),
            (wanted.study, audit.c.study == wanted.study),
            (wanted.sop, audit.c.sop == wanted.sop),
            (wanted.ae, audit.c.actor == wanted.ae),
            (wanted.event, audit.c.event == wanted.event),
        ):
            if given:
                query = query.where(condition)
        return [_record(row) for row in tx.execute(query)]


def _row(entry: Entry, time: str) -> dict[str, Any]:
    assert entry.event in _KNOWN and entry.outcome in OUTCOMES, (entry.event, entry.outcome)
    about = entry.about
    payload = _CANONICAL.encode(
        {
            "time": time,
            "event": entry.event,
            "actor": entry.actor.name,
            "host": entry.actor.host,
            "patient": about.patient.id,
            "name": about.patient.name,
            "accession": about.patient.accession,
            "study": about.study,
            "sop": about.sop,
            "outcome": entry.outcome,
            "detail": dict(entry.detail),
        }
    ).encode()
    return {
        "time": time,
        "event": entry.event,
        "actor": entry.actor.name,
        "patient": about.patient.id,
        "study": about.study,
        "sop": about.sop,
        "payload": payload,
        "hash": hashlib.sha256(payload).digest(),
    }


def pages(log: Audit, read: Any, wanted: Filter) -> Iterator[Record]:
    """Every record that fits, a short transaction a page, so that an export of any size holds up nobody.

    `read` is the database's `read`.
    """
    after = 0
    while True:
        with read() as tx:
            page = log.page(tx, wanted, after=after)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].id


def _record(row: Row[Any]) -> Record:
    told = json.loads(row.payload)
    return Record(
        id=row.id,
        time=told["time"],
        event=told["event"],
        actor=told["actor"],
        host=told["host"],
        patient_id=row.value or "",
        study=told["study"],
        sop=told["sop"],
        outcome=told["outcome"],
        detail=told["detail"],
    )
