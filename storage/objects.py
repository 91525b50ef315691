"""What somebody sent, one row a SOP instance and revision; and what an arrival is to what is kept already."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    update,
)

from storage.audit import About, Actor, Audit, Entry, Patient, PatientKeys
from storage.clock import Clock, stamp
from storage.commitments import is_awaited
from storage.database import among
from storage.prepared import Prepared, inserting
from storage.schema import deliveries, jobs, objects, report_jobs, results, studies

# SQLite takes 32,766 values in a statement
_MOST_NAMED = 1000


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
    # from the first byte of its command to the last of its data
    seconds: float | None = None


class Verdict(Enum):
    """What an arrival is to what is there already."""

    NEW = "new"
    # same UID, same data set bytes
    REPEATED = "repeated"
    # same UID, other bytes, same patient, study and series
    CHANGED = "changed"
    # same UID under another patient, study or series
    FOREIGN = "foreign"


@dataclass(frozen=True)
class Kept:
    """An arrival whose file lasts. `revised`: other bytes may be kept already under its UID."""

    arrival: Arrival
    file: str
    revised: bool = False


@dataclass(frozen=True)
class Known:
    """A row: its id, and what the audit log calls the object."""

    id: int
    about: About


@dataclass(frozen=True)
class Over:
    """Files whose time is over: how many, their bytes (of the data sets; 0 where not known) and the oldest's time."""

    count: int
    size: int
    oldest: str

    def with_one(self, size: int, time: str) -> "Over":
        return Over(self.count + 1, self.size + size, min(self.oldest, time))


@dataclass(frozen=True)
class Stored:
    """Files that are kept: how many, and the time of the newest (a stamp; empty where there is none)."""

    count: int
    newest: str


_KNOWN = Prepared(
    lambda count: select(
        objects.c.sop_instance, objects.c.content_hash, objects.c.patient, objects.c.study, objects.c.series
    ).where(objects.c.sop_instance.in_([bindparam(f"uid_{n}") for n in range(count)]))
)
_OWN = Prepared(
    lambda count: select(results.c.sop_instance).where(
        results.c.sop_instance.in_([bindparam(f"uid_{n}") for n in range(count)])
    )
)
_KEEP = Prepared(inserting(objects))
_REVISION = Prepared(
    lambda _: select(func.max(objects.c.revision)).where(objects.c.sop_instance == bindparam("uid_0"))
)
_LAST = Prepared(lambda _: select(func.max(objects.c.id)))


class Objects:
    def __init__(self, audit: Audit, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock

    def judge(self, tx: Connection, arrival: Arrival) -> Verdict:
        """Compares with every revision that is kept under the UID."""
        return self.judge_all(tx, [arrival])[0]

    def judge_all(self, tx: Connection, arrivals: Sequence[Arrival]) -> list[Verdict]:
        """`judge` of several, in their order, each by what is kept already."""
        known: dict[str, list[tuple[Any, ...]]] = {}
        for uid, *row in _KNOWN.run(tx, [{"uid": arrival.sop_instance} for arrival in arrivals]):
            known.setdefault(uid, []).append(tuple(row))
        return [self._verdict(arrival, known.get(arrival.sop_instance, [])) for arrival in arrivals]

    def _verdict(self, arrival: Arrival, known: Sequence[tuple[Any, ...]]) -> Verdict:
        if not known:
            return Verdict.NEW
        here = (self._audit.keys_of(arrival.patient).id, arrival.study, arrival.series)
        if any(row[1:] != here for row in known):
            return Verdict.FOREIGN
        if any(row[0] == arrival.content_hash for row in known):
            return Verdict.REPEATED
        return Verdict.CHANGED

    def keep(self, tx: Connection, arrival: Arrival, file: str) -> int:
        """The row of an object whose file lasts already; its id. Records object.received."""
        entries: list[Entry] = []
        (known,) = self.keep_all(tx, [Kept(arrival, file, revised=True)], entries)
        self._audit.record_all(tx, entries)
        return known.id

    def keep_all(self, tx: Connection, kept: Sequence[Kept], entries: list[Entry]) -> list[Known]:
        """Rows of objects whose files last already, each under a UID of its own.

        Appends object.received of each to `entries`, which the caller records in the same transaction.
        """
        known = self._audit.identify_all(tx, [one.arrival.patient for one in kept])
        first = (_LAST.run(tx, [{}])[0][0] or 0) + 1
        now = self._clock.stamp()
        rows, made = [], []
        for number, (one, keys) in enumerate(zip(kept, known, strict=True), first):
            arrival = one.arrival
            revision = self._newest(tx, arrival.sop_instance) + 1 if one.revised else 1
            about = _about(arrival, keys)
            rows.append(
                {
                    "id": number,
                    "sop_instance": arrival.sop_instance,
                    "revision": revision,
                    "sop_class": arrival.sop_class,
                    "series": arrival.series,
                    "study": arrival.study,
                    "patient": keys.id,
                    "patient_name": keys.name,
                    "accession": keys.accession,
                    "transfer_syntax": arrival.transfer_syntax,
                    "size": arrival.size,
                    "content_hash": arrival.content_hash,
                    "file": one.file,
                    "received_at": now,
                    "calling_ae": arrival.sender.name,
                    "host": arrival.sender.host,
                    "own": arrival.own,
                }
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
            if arrival.seconds is not None:
                detail["seconds"] = round(arrival.seconds, 3)
            entries.append(Entry("object.received", about, arrival.sender, detail=detail))
            made.append(Known(number, about))
        _KEEP.run(tx, rows)
        return made

    def _newest(self, tx: Connection, sop_instance: str) -> int:
        return _REVISION.run(tx, [{"uid": sop_instance}])[0][0] or 0

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
        return bool(self.own_among(tx, [sop_instance]))

    def own_among(self, tx: Connection, sop_instances: Sequence[str]) -> set[str]:
        """Those that are UIDs of results that this node made."""
        return {uid for (uid,) in _OWN.run(tx, [{"uid": uid} for uid in sop_instances])}

    def held(self, tx: Connection, sop_instances: Sequence[str]) -> dict[str, list[tuple[str, str | None]]]:
        """SOP class and file (None: expired) of each revision of those that are known."""
        found: dict[str, list[tuple[str, str | None]]] = {}
        for at in range(0, len(sop_instances), _MOST_NAMED):
            named = objects.c.sop_instance.in_(sop_instances[at : at + _MOST_NAMED])
            for row in tx.execute(
                select(objects.c.sop_instance, objects.c.sop_class, objects.c.file).where(named)
            ):
                found.setdefault(row.sop_instance, []).append((row.sop_class, row.file))
        return found

    def files(self, tx: Connection) -> set[str]:
        """The spool files that have a row."""
        return set(tx.execute(select(objects.c.file).where(objects.c.file.is_not(None))).scalars())

    def count(self, tx: Connection) -> int:
        return tx.execute(select(func.count()).select_from(objects)).scalar_one()

    def expirable(
        self, tx: Connection, before: datetime, limit: int = 100, *, after: int = 0
    ) -> list[tuple[int, str]]:
        """(id, file) of objects received before that moment of which nothing is to be read, reported,
        delivered or committed to any more; with ids above `after`."""
        rows = tx.execute(
            select(objects.c.id, objects.c.file)
            .where(_kept_before(before), ~or_(*_held().values()), objects.c.id > after)
            .order_by(objects.c.id)
            .limit(limit)
        )
        return [(row.id, row.file) for row in rows]

    def over(self, tx: Connection, before: datetime) -> dict[str, Over]:
        """What is kept of the time before that moment, by why it stays; "" for what may go."""
        why = case(*((holds, reason) for reason, holds in _held().items()), else_="")
        found: dict[str, Over] = {}
        # not grouped by SQLite, which would ask why twice
        told = select(why, objects.c.size, objects.c.received_at).where(_kept_before(before))
        for reason, size, received_at in tx.execute(told):
            found[reason] = found.get(reason, Over(0, 0, received_at)).with_one(size, received_at)
        return found

    def stored(self, tx: Connection, patient: str, study: str) -> Stored:
        """The files of a patient (by key), of a study, or of a patient in one study."""
        of = of_patient(patient, study)
        told = select(func.count(), func.max(objects.c.received_at))
        count, newest = tx.execute(told.where(objects.c.file.is_not(None), of)).one()
        return Stored(count, newest or "")

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


def of_patient(patient: str, study: str) -> ColumnElement[bool]:
    """The objects of a patient (by key), of a study, or of a patient in one study."""
    wanted = [(objects.c.patient, patient), (objects.c.study, study)]
    return and_(*(column == value for column, value in wanted if value))


def _kept_before(before: datetime) -> ColumnElement[bool]:
    return objects.c.file.is_not(None) & (objects.c.received_at < stamp(before))


def _held() -> dict[str, ColumnElement[bool]]:
    """Why an image stays though its time is over; the first that holds is told."""
    read = select(jobs.c.id).where(jobs.c.object_id == objects.c.id)
    sent = (
        select(deliveries.c.id)
        .join_from(jobs, report_jobs, report_jobs.c.job_id == jobs.c.id)
        .join(results, results.c.report_id == report_jobs.c.report_id)
        .join(deliveries, deliveries.c.result_id == results.c.id)
        .where(jobs.c.object_id == objects.c.id)
    )
    # of a study that is reported anew all images are read again
    reported = select(studies.c.id).where(
        studies.c.study == objects.c.study,
        studies.c.patient == objects.c.patient,
        studies.c.patient_name == objects.c.patient_name,
        studies.c.state.in_(("waiting", "running")),
    )
    return {
        "parked": _any(read.where(among(jobs.c.state, "parked")))
        | _any(sent.where(among(deliveries.c.state, "parked"))),
        "unread": _any(read.where(among(jobs.c.state, "queued", "running"))) | _any(reported),
        "undelivered": _any(sent.where(among(deliveries.c.state, "waiting", "sending"))),
        "uncommitted": _any(sent.where(is_awaited(deliveries.c.id))),
    }


def _any(query: Select[Any]) -> ColumnElement[bool]:
    return query.correlate(objects).exists()


def _about(arrival: Arrival, keys: PatientKeys) -> About:
    return About(keys, arrival.study, arrival.sop_instance)
