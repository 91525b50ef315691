"""One record: what is written, in the transaction of the thing itself, and what a person reads.

A record's payload is canonical JSON (keys sorted, no empty text). It carries keyed hashes of a patient's identifiers,
whose values lie apart in `audit_identity` and can be erased without touching the record.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json
from sqlalchemy import Connection, func, select

from storage.audit.events import EVENTS, OUTCOMES
from storage.clock import Clock, is_stamp
from storage.prepared import Prepared, inserting
from storage.schema import audit, audit_identity

SHOWN_DIGITS = 12
"""Of a keyed hash, hexadecimal, where its value is not kept."""

_KNOWN = frozenset(EVENTS)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
_RECORD = Prepared(inserting(audit, "payload", "hash"))
_IDENTIFY = Prepared(lambda count: inserting(audit_identity)(count).on_conflict_do_nothing())


UNREADABLE: dict[str, Any] = {
    "time": "1970-01-01T00:00:00.000000Z",
    "event": "audit.unreadable",
    "outcome": "failure",
}
"""Stands for a payload that somebody else than Hilum has put into the database."""


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
    """Who did it: an AE title, a process of ours or an OS user; from which host; by which certificate's subject."""

    name: str = "hilum"
    host: str = ""
    certificate: str = ""


@dataclass(frozen=True)
class Entry:
    """One record to be written. `detail` holds no patient data."""

    event: str
    about: About = About()
    actor: Actor = Actor()
    outcome: str = "success"
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """One record as it is read. Of the patient the id, or what `shown` makes of its key; the keys are in `about`."""

    id: int
    time: str
    event: str
    actor: str
    host: str
    certificate: str
    patient_id: str
    study: str
    sop: str
    outcome: str
    detail: dict[str, Any]
    about: About


class Records:
    """Writes records. `key` (32 bytes) hashes identifiers; it never leaves the data folder.

    `keeps_names`: whether the values behind the keyed hashes are kept (`[audit] identifiers = "full"`).
    """

    def __init__(self, key: bytes, clock: Clock, *, keeps_names: bool = True) -> None:
        self._key = key
        self._clock = clock
        self._keeps_names = keeps_names

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
        if not self._keeps_names:
            return found
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
        detail: Mapping[str, Any] | None = None,
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


def told_of(payload: object) -> dict[str, Any]:
    """What a payload says. Of one that no Hilum has written, nothing but that it is so: reading must go on."""
    try:
        found = from_json(payload) if isinstance(payload, bytes | str) else None
    except ValueError:
        return UNREADABLE
    if not isinstance(found, dict) or not isinstance(found.get("detail", {}), dict):
        return UNREADABLE
    if not {"time", "event", "outcome"} <= found.keys():
        return UNREADABLE
    texts = (value for key, value in found.items() if key != "detail")
    if not all(isinstance(value, str) for value in texts) or not is_stamp(found["time"]):
        return UNREADABLE
    return found


def values_of(tx: Connection, keys: Iterable[str]) -> dict[str, str]:
    """The values behind keyed hashes; those that were erased or never kept are absent."""
    wanted = sorted({key for key in keys if key})
    known: dict[str, str] = {}
    for at in range(0, len(wanted), 500):
        some = audit_identity.c.key.in_(wanted[at : at + 500])
        for row in tx.execute(select(audit_identity.c.key, audit_identity.c.value).where(some)):
            if row.value is not None:
                known[row.key] = row.value
    return known


def shown(key: str, value: str) -> str:
    """What a person reads of one identifier: its value; where that was erased or never kept, # and the key's first
    digits, so that records of one patient can be told from those of another."""
    return value or (f"#{key[:SHOWN_DIGITS]}" if key else "")


def records_of(tx: Connection, rows: Sequence[tuple[int, dict[str, Any]]]) -> list[Record]:
    """Records from their ids and decoded payloads, in the same order."""
    names = values_of(tx, (told.get("patient", "") for _, told in rows))
    return [
        Record(
            id=number,
            time=told["time"],
            event=told["event"],
            actor=told.get("actor", ""),
            host=told.get("host", ""),
            certificate=told.get("certificate", ""),
            patient_id=shown(told.get("patient", ""), names.get(told.get("patient", ""), "")),
            study=told.get("study", ""),
            sop=told.get("sop", ""),
            outcome=told["outcome"],
            detail=told.get("detail", {}),
            about=about_of(told),
        )
        for number, told in rows
    ]


def about_of(told: Mapping[str, Any]) -> About:
    keys = PatientKeys(told.get("patient", ""), told.get("name", ""), told.get("accession", ""))
    return About(keys, told.get("study", ""), told.get("sop", ""))


def _row(entry: Entry, time: str) -> dict[str, Any]:
    assert entry.event in _KNOWN and entry.outcome in OUTCOMES, (entry.event, entry.outcome)
    about, actor = entry.about, entry.actor
    told = {
        "time": time,
        "event": entry.event,
        "actor": actor.name,
        "host": actor.host,
        "certificate": actor.certificate,
        "patient": about.patient.id,
        "name": about.patient.name,
        "accession": about.patient.accession,
        "study": about.study,
        "sop": about.sop,
        "outcome": entry.outcome,
        "detail": dict(entry.detail),
    }
    payload = _CANONICAL.encode({key: value for key, value in told.items() if value}).encode()
    return {"payload": payload, "hash": hashlib.sha256(payload).digest()}
