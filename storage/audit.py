"""The audit log: a record for each thing that happens, in the transaction of the thing itself.

A record's payload is canonical JSON; it carries keyed hashes of a patient's identifiers, whose values lie apart in
`audit_identity` and can be erased without touching the record. Triggers refuse every change of a record.
"""

import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select
from sqlalchemy.dialects.sqlite import insert as insert_or_ignore

from storage.clock import Clock
from storage.schema import audit, audit_identity

EVENTS = (
    "association.accepted", "association.refused", "association.aborted",
    "object.received", "object.repeated", "object.conflict", "object.refused",
    "job.queued", "job.claimed", "job.skipped", "job.analyzed", "job.parked", "job.retried", "job.discarded",
    "study.waiting", "study.claimed", "study.reported", "study.parked",
    "result.made", "result.quarantined",
    "delivery.attempted", "delivery.delivered", "delivery.committed", "delivery.parked", "delivery.retried",
    "delivery.discarded",
    "object.expired",
    "node.started", "node.stopped", "node.recovered",
    "config.changed", "audit.queried",
)  # fmt: skip

OUTCOMES = ("success", "failure")
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
        return hmac.new(self._key, f"{kind}\0{value}".encode(), hashlib.sha256).hexdigest() if value else ""

    def keys_of(self, patient: Patient) -> PatientKeys:
        return PatientKeys(
            id=self.key_of("patient_id", patient.id),
            name=self.key_of("patient_name", patient.name),
            accession=self.key_of("accession", patient.accession),
        )

    def identify(self, tx: Connection, patient: Patient) -> PatientKeys:
        """The patient's keys; their values are put down in `audit_identity` if they are new."""
        keys = self.keys_of(patient)
        known = [
            {"key": keys.id, "kind": "patient_id", "value": patient.id},
            {"key": keys.name, "kind": "patient_name", "value": patient.name},
            {"key": keys.accession, "kind": "accession", "value": patient.accession},
        ]
        rows = [row for row in known if row["key"]]
        if rows:
            tx.execute(insert_or_ignore(audit_identity).on_conflict_do_nothing(), rows)
        return keys

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
        assert event in EVENTS and outcome in OUTCOMES, (event, outcome)
        time = self._clock.stamp()
        payload = json.dumps(
            {
                "time": time,
                "event": event,
                "actor": actor.name,
                "host": actor.host,
                "patient": about.patient.id,
                "name": about.patient.name,
                "accession": about.patient.accession,
                "study": about.study,
                "sop": about.sop,
                "outcome": outcome,
                "detail": detail or {},
            },
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
        ).encode()
        row = {
            "time": time,
            "event": event,
            "actor": actor.name,
            "patient": about.patient.id,
            "study": about.study,
            "sop": about.sop,
            "payload": payload,
            "hash": hashlib.sha256(payload).digest(),
        }
        tx.execute(insert(audit).values(row))

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
