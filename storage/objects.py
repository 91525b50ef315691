"""What somebody sent, one row a SOP instance and revision; and what an arrival is to what is kept already."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from sqlalchemy import Connection, func, insert, select, update

from storage.audit import About, Actor, Audit, Patient, PatientKeys
from storage.clock import Clock, stamp
from storage.database import new_id
from storage.schema import deliveries, jobs, objects, report_jobs, results, studies


@dataclass(frozen=True)
class Arrival:
    """One whole, sane object, before it is known whether it is kept. Hashes are `sha256:…` of the data set bytes."""

    sop_class: str
    sop_instance: str
    series: str
    study: str
    patient: Patient
    transfer_syntax: str
    size: int
    content_hash: str
    sender: Actor
    own: bool = False


class Verdict(Enum):
    """What an arrival is to what is there already."""

    NEW = "new"
    # same UID, same data set bytes
    REPEATED = "repeated"
    # same UID, other bytes, same patient, study and series
    CHANGED = "changed"
    # same UID under another patient, study or series
    FOREIGN = "foreign"


class Objects:
    def __init__(self, audit: Audit, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock

    def judge(self, tx: Connection, arrival: Arrival) -> Verdict:
        """Compares with every revision that is kept under the UID."""
        known = tx.execute(
            select(objects.c.content_hash, objects.c.patient, objects.c.study, objects.c.series).where(
                objects.c.sop_instance == arrival.sop_instance
            )
        ).all()
        if not known:
            return Verdict.NEW
        here = (self._audit.keys_of(arrival.patient).id, arrival.study, arrival.series)
        if any((row.patient, row.study, row.series) != here for row in known):
            return Verdict.FOREIGN
        if any(row.content_hash == arrival.content_hash for row in known):
            return Verdict.REPEATED
        return Verdict.CHANGED

    def keep(self, tx: Connection, arrival: Arrival, file: str) -> int:
        """The row of an object whose file lasts already; its id. Records object.received."""
        keys = self._audit.identify(tx, arrival.patient)
        newest = tx.execute(
            select(func.max(objects.c.revision)).where(objects.c.sop_instance == arrival.sop_instance)
        ).scalar()
        revision = (newest or 0) + 1
        row = tx.execute(
            insert(objects).values(
                sop_instance=arrival.sop_instance,
                revision=revision,
                sop_class=arrival.sop_class,
                series=arrival.series,
                study=arrival.study,
                patient=keys.id,
                patient_name=keys.name,
                accession=keys.accession,
                transfer_syntax=arrival.transfer_syntax,
                size=arrival.size,
                content_hash=arrival.content_hash,
                file=file,
                received_at=self._clock.stamp(),
                calling_ae=arrival.sender.name,
                host=arrival.sender.host,
                own=arrival.own,
            )
        )
        detail = {
            "size": arrival.size,
            "content_hash": arrival.content_hash,
            "sop_class": arrival.sop_class,
            "transfer_syntax": arrival.transfer_syntax,
            "revision": revision,
        }
        if arrival.own:
            detail["own_result"] = True
        self._audit.record(
            tx, "object.received", about=_about(arrival, keys), actor=arrival.sender, detail=detail
        )
        return new_id(row)

    def repeated(self, tx: Connection, arrival: Arrival) -> None:
        """Records that the same object came again."""
        keys = self._audit.identify(tx, arrival.patient)
        self._audit.record(
            tx,
            "object.repeated",
            about=_about(arrival, keys),
            actor=arrival.sender,
            detail={"content_hash": arrival.content_hash},
        )

    def conflict(self, tx: Connection, arrival: Arrival, reason: str) -> None:
        """Records that other bytes came under a UID that is taken, and were refused."""
        keys = self._audit.identify(tx, arrival.patient)
        self._audit.record(
            tx,
            "object.conflict",
            about=_about(arrival, keys),
            actor=arrival.sender,
            outcome="failure",
            detail={"reason": reason, "content_hash": arrival.content_hash},
        )

    def is_own(self, tx: Connection, sop_instance: str) -> bool:
        """Is it the UID of a result that this node made?"""
        return (
            tx.execute(select(results.c.id).where(results.c.sop_instance == sop_instance)).first() is not None
        )

    def files(self, tx: Connection) -> set[str]:
        """The spool files that have a row."""
        return set(tx.execute(select(objects.c.file).where(objects.c.file.is_not(None))).scalars())

    def count(self, tx: Connection) -> int:
        return tx.execute(select(func.count()).select_from(objects)).scalar_one()

    def expirable(self, tx: Connection, before: datetime, limit: int = 100) -> list[tuple[int, str]]:
        """(id, file) of objects received before that moment of which nothing is to be read, reported or
        delivered any more."""
        unread = select(jobs.c.object_id).where(jobs.c.state.in_(("queued", "running", "parked")))
        undelivered = (
            select(jobs.c.object_id)
            .join(report_jobs, report_jobs.c.job_id == jobs.c.id)
            .join(results, results.c.report_id == report_jobs.c.report_id)
            .join(deliveries, deliveries.c.result_id == results.c.id)
            .where(deliveries.c.state.in_(("waiting", "sending", "parked")))
        )
        unreported = (
            select(studies.c.id)
            .where(
                studies.c.state.in_(("waiting", "running")),
                studies.c.study == objects.c.study,
                studies.c.patient == objects.c.patient,
                studies.c.patient_name == objects.c.patient_name,
            )
            .correlate(objects)
        )
        rows = tx.execute(
            select(objects.c.id, objects.c.file)
            .where(
                objects.c.file.is_not(None),
                objects.c.received_at < stamp(before),
                objects.c.id.not_in(unread),
                objects.c.id.not_in(undelivered),
                ~unreported.exists(),
            )
            .order_by(objects.c.id)
            .limit(limit)
        )
        return [(row.id, row.file) for row in rows]

    def forget_file(self, tx: Connection, object_id: int) -> None:
        """The file has expired; the row stays. Records object.expired."""
        row = tx.execute(select(objects).where(objects.c.id == object_id)).one()
        tx.execute(update(objects).where(objects.c.id == object_id).values(file=None))
        self._audit.record(
            tx,
            "object.expired",
            about=About(
                PatientKeys(row.patient, row.patient_name, row.accession), row.study, row.sop_instance
            ),
            detail={"what": "image", "content_hash": row.content_hash},
        )


def _about(arrival: Arrival, keys: PatientKeys) -> About:
    return About(keys, arrival.study, arrival.sop_instance)
