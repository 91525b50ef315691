"""The queue: one job is one reading of one object by one model.

    queued ──claim──► running ──finish──► done | skipped | parked
      ▲                  │                 └─ its study can't be reported ─► parked
      └── worker died ───┘            parked ──retry──► queued,  ──discard──► discarded

A claim names its owner and a lease; whoever finishes a job must still own it. Deaths are counted by the rule that
an image which kills its worker parks itself and costs nobody else's: after a worker died its jobs are tried alone,
only lone attempts count, and at three the job is parked.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection, Row, Select, delete, func, insert, select, text, update

from storage.audit import About, Actor, Audit, Entry, PatientKeys
from storage.clock import Clock, moment, stamp
from storage.database import new_id
from storage.errors import WrongState
from storage.prepared import Prepared, inserting
from storage.schema import jobs, objects, scores

LIVES = 3
MOST_EARLIER = 5
OPERATOR_STATES = ("parked",)


class Score(Protocol):
    """One finding of one job; `model.classifier.Finding` fits."""

    @property
    def label(self) -> str: ...
    @property
    def raw(self) -> float: ...
    @property
    def score(self) -> float: ...
    @property
    def threshold(self) -> float: ...
    @property
    def present(self) -> bool: ...


@dataclass(frozen=True)
class Found:
    """One finding of one job, as it was put down."""

    label: str
    raw: float
    score: float
    threshold: float
    present: bool


@dataclass(frozen=True)
class Before:
    """What was found before in another image of a patient, by the weights `model`."""

    finished_at: datetime
    study: str
    model: str
    found: tuple[Found, ...]


@dataclass(frozen=True)
class Job:
    """A job and what its reader needs to know of the object."""

    id: int
    object_id: int
    state: str
    reason: str
    model: str
    request: int
    attempt: int
    failures: int
    created_at: datetime
    sop_instance: str
    sop_class: str
    study: str
    revision: int
    transfer_syntax: str
    content_hash: str
    file: str | None
    received_at: datetime
    own: bool
    about: About


@dataclass(frozen=True)
class NewJob:
    """The first reading of an object. `reason`: why it is skipped at once; empty: it is queued."""

    object_id: int
    about: About
    reason: str = ""


_NEW = ("id", "object_id", "model", "request", "state", "reason", "attempt", "failures", "alone", "batch")
_LAST = Prepared(lambda _: select(func.max(jobs.c.id)))
_QUEUE = Prepared(inserting(jobs, *_NEW, "created_at", "finished_at"))


class Jobs:
    def __init__(self, audit: Audit, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock

    def queue(
        self,
        tx: Connection,
        object_id: int,
        model: str,
        *,
        state: str = "queued",
        reason: str = "",
        request: int = 1,
    ) -> int:
        """A new job, `queued`, or `skipped` at once for a reason that is known already; its id."""
        assert state in {"queued", "skipped", "parked"}, state
        now = self._clock.stamp()
        row = tx.execute(insert(jobs).values(_new(object_id, model, request, state, reason, now)))
        job_id = new_id(row)
        self._tell(tx, job_id, f"job.{state}", reason=reason)
        return job_id

    def queue_all(self, tx: Connection, new: Sequence[NewJob], model: str, entries: list[Entry]) -> None:
        """First jobs of objects that have just been kept, each queued or skipped at once.

        Appends the record of each to `entries`, which the caller records in the same transaction.
        """
        if not new:
            return
        first = (_LAST.run(tx, [{}])[0][0] or 0) + 1
        now = self._clock.stamp()
        rows = []
        for number, one in enumerate(new, first):
            state = "skipped" if one.reason else "queued"
            rows.append({"id": number, **_new(one.object_id, model, 1, state, one.reason, now)})
            detail = {"job": number, **({"reason": one.reason} if one.reason else {})}
            entries.append(Entry(f"job.{state}", one.about, detail=detail))
        _QUEUE.run(tx, rows)

    def claim(self, tx: Connection, owner: str, limit: int, lease_seconds: float) -> list[Job]:
        """At most `limit` queued jobs, oldest first, now running for `owner`; one that must be alone comes alone."""
        waiting = tx.execute(
            select(jobs.c.id, jobs.c.alone).where(jobs.c.state == "queued").order_by(jobs.c.id).limit(limit)
        ).all()
        if not waiting:
            return []
        together = [row.id for row in waiting if not row.alone]
        chosen = [waiting[0].id] if waiting[0].alone else together
        tx.execute(
            update(jobs)
            .where(jobs.c.id.in_(chosen))
            .values(
                state="running",
                owner=owner,
                lease_until=self._clock.monotonic() + lease_seconds,
                attempt=jobs.c.attempt + 1,
                batch=len(chosen),
            )
        )
        claimed = self.get(tx, chosen)
        for job in claimed:
            self._audit.record(
                tx,
                "job.claimed",
                about=job.about,
                actor=Actor(owner),
                detail={"job": job.id, "attempt": job.attempt},
            )
        return claimed

    def finish(
        self,
        tx: Connection,
        job_id: int,
        owner: str,
        state: str,
        *,
        reason: str = "",
        found: Iterable[Score] = (),
        picture_hash: str | None = None,
        model: str = "",
        detail: dict[str, Any] | None = None,
    ) -> None:
        """running -> done, skipped or parked. Raises WrongState if `owner` lost it meanwhile.

        `model`: the hash of the weights that read it, where these may have changed since it was queued.
        """
        assert state in {"done", "skipped", "parked"}, state
        ended = tx.execute(
            update(jobs)
            .where(jobs.c.id == job_id, jobs.c.state == "running", jobs.c.owner == owner)
            .values(
                state=state,
                reason=reason,
                owner=None,
                lease_until=None,
                picture_hash=picture_hash,
                model=model or jobs.c.model,
                finished_at=self._clock.stamp(),
            )
        )
        if ended.rowcount != 1:
            raise WrongState(f"job {job_id} is no longer running for {owner}")
        rows = [
            {
                "job_id": job_id,
                "label": s.label,
                "raw": s.raw,
                "calibrated": s.score,
                "threshold": s.threshold,
                "present": s.present,
            }
            for s in found
        ]
        if rows:
            tx.execute(insert(scores), rows)
        event = {"done": "job.analyzed", "skipped": "job.skipped", "parked": "job.parked"}[state]
        self._tell(tx, job_id, event, actor=Actor(owner), reason=reason, **(detail or {}))

    def take_back(self, tx: Connection, job_id: int, reason: str) -> None:
        """done -> parked: no report could be made of what it found, which is forgotten. A retry reads it again."""
        tx.execute(delete(scores).where(scores.c.job_id == job_id))
        tx.execute(
            update(jobs)
            .where(jobs.c.id == job_id, jobs.c.state == "done")
            .values(state="parked", reason=reason)
        )
        self._tell(tx, job_id, "job.parked", reason=reason)

    def died(self, tx: Connection, owner: str) -> None:
        """The process died under a living supervisor: its jobs are tried again, alone, or parked at the third time."""
        for job in self._running(tx, jobs.c.owner == owner):
            self._count(tx, job.id, job.batch == 1, "the reading process died on this image three times")

    def failed(self, tx: Connection, job_id: int, owner: str, reason: str) -> None:
        """An attempt ended in an I/O error of ours: again, alone; a lone one counts, the third parks."""
        for job in self._running(tx, (jobs.c.id == job_id) & (jobs.c.owner == owner)):
            self._count(tx, job.id, job.batch == 1, reason)

    def expired(self, tx: Connection) -> list[str]:
        """Owners of running jobs whose lease has run out."""
        late = (
            select(jobs.c.owner)
            .distinct()
            .where(jobs.c.state == "running", jobs.c.lease_until < self._clock.monotonic())
        )
        return [owner for owner in tx.execute(late).scalars() if owner]

    def recover(self, tx: Connection) -> int:
        """At a start of the node: running -> queued, nothing counted; how many."""
        back = tx.execute(
            update(jobs).where(jobs.c.state == "running").values(state="queued", owner=None, lease_until=None)
        )
        return back.rowcount

    def retry(self, tx: Connection, job_id: int, actor: Actor) -> None:
        """parked -> queued, with all its lives. Raises WrongState."""
        self._operate(tx, job_id, "queued", reason="", failures=0, alone=False, finished_at=None)
        self._tell(tx, job_id, "job.retried", actor=actor)

    def discard(self, tx: Connection, job_id: int, actor: Actor) -> None:
        """parked -> discarded. Raises WrongState."""
        self._operate(tx, job_id, "discarded")
        self._tell(tx, job_id, "job.discarded", actor=actor)

    def get(self, tx: Connection, ids: Sequence[int]) -> list[Job]:
        return [_job(row) for row in tx.execute(_select().where(jobs.c.id.in_(ids)).order_by(jobs.c.id))]

    def listing(self, tx: Connection, state: str = "", *, after: int = 0, limit: int = 1000) -> list[Job]:
        """Jobs by id, those of one state if given."""
        query = _select().where(jobs.c.id > after).order_by(jobs.c.id).limit(limit)
        return [_job(row) for row in tx.execute(query.where(jobs.c.state == state) if state else query)]

    def found(self, tx: Connection, job_id: int) -> list[Found]:
        """What a done job found, in the model's order of labels."""
        rows = tx.execute(select(scores).where(scores.c.job_id == job_id).order_by(text("rowid")))
        return [Found(r.label, r.raw, r.calibrated, r.threshold, r.present) for r in rows]

    def earlier(self, tx: Connection, images: Sequence[Job]) -> list[Before]:
        """What other images of the same patient showed before the first of `images` came, newest first.

        The same answer each time it is asked. Who has no number or no name is nobody: two hospitals may give the same
        number.
        """
        patient = images[0].about.patient
        if not patient.id or not patient.name:
            return []
        rows = tx.execute(
            select(jobs.c.id, jobs.c.model, jobs.c.finished_at, objects.c.study, objects.c.sop_instance)
            .join(objects, objects.c.id == jobs.c.object_id)
            .where(
                objects.c.patient == patient.id,
                objects.c.patient_name == patient.name,
                objects.c.sop_instance.not_in([job.sop_instance for job in images]),
                jobs.c.state == "done",
                jobs.c.finished_at < stamp(min(job.created_at for job in images)),
                # a rebuilt job has none
                jobs.c.id.in_(select(scores.c.job_id)),
            )
            .order_by(jobs.c.finished_at.desc(), jobs.c.id.desc())
            # an image may have been read several times
            .limit(MOST_EARLIER * 4)
        ).all()
        newest: dict[str, Row[Any]] = {}
        for row in rows:
            newest.setdefault(row.sop_instance, row)
        return [
            Before(moment(row.finished_at), row.study, row.model, tuple(self.found(tx, row.id)))
            for row in list(newest.values())[:MOST_EARLIER]
        ]

    def counts(self, tx: Connection) -> dict[str, int]:
        rows = tx.execute(select(jobs.c.state, func.count().label("n")).group_by(jobs.c.state))
        return {row.state: row.n for row in rows}

    def oldest_queued(self, tx: Connection) -> datetime | None:
        found = tx.execute(select(func.min(jobs.c.created_at)).where(jobs.c.state == "queued")).scalar()
        return moment(found) if found else None

    def same_picture(self, tx: Connection, job: Job, picture_hash: str) -> bool:
        """Was the same picture read under this UID before, in an earlier revision?"""
        earlier = (
            select(jobs.c.id)
            .join(objects, objects.c.id == jobs.c.object_id)
            .where(
                objects.c.sop_instance == job.sop_instance,
                objects.c.revision < job.revision,
                jobs.c.state == "done",
                jobs.c.picture_hash == picture_hash,
            )
        )
        return tx.execute(earlier).first() is not None

    def _running(self, tx: Connection, which: Any) -> Sequence[Row[Any]]:
        return tx.execute(select(jobs.c.id, jobs.c.batch).where(jobs.c.state == "running", which)).all()

    def _count(self, tx: Connection, job_id: int, lone: bool, reason: str) -> None:
        tx.execute(
            update(jobs)
            .where(jobs.c.id == job_id)
            .values(
                state="queued", owner=None, lease_until=None, alone=True, failures=jobs.c.failures + int(lone)
            )
        )
        failures = tx.execute(select(jobs.c.failures).where(jobs.c.id == job_id)).scalar_one()
        if failures >= LIVES:
            now = self._clock.stamp()
            tx.execute(
                update(jobs).where(jobs.c.id == job_id).values(state="parked", reason=reason, finished_at=now)
            )
            self._tell(tx, job_id, "job.parked", reason=reason)

    def _operate(self, tx: Connection, job_id: int, state: str, **values: Any) -> None:
        changed = tx.execute(
            update(jobs)
            .where(jobs.c.id == job_id, jobs.c.state.in_(OPERATOR_STATES))
            .values(state=state, **values)
        )
        if changed.rowcount != 1:
            found = tx.execute(select(jobs.c.state).where(jobs.c.id == job_id)).scalar()
            raise WrongState(f"job {job_id} is {found}, not parked" if found else f"there is no job {job_id}")

    def _tell(
        self,
        tx: Connection,
        job_id: int,
        event: str,
        *,
        actor: Actor | None = None,
        reason: str = "",
        **detail: Any,
    ) -> None:
        (job,) = self.get(tx, [job_id])
        told = {"job": job_id, **({"reason": reason} if reason else {}), **detail}
        outcome = "failure" if event == "job.parked" else "success"
        self._audit.record(tx, event, about=job.about, actor=actor or Actor(), outcome=outcome, detail=told)


def _new(object_id: int, model: str, request: int, state: str, reason: str, now: str) -> dict[str, Any]:
    return {
        "object_id": object_id,
        "model": model,
        "request": request,
        "state": state,
        "reason": reason,
        "attempt": 0,
        "failures": 0,
        "alone": False,
        "batch": 0,
        "created_at": now,
        "finished_at": None if state == "queued" else now,
    }


def _select() -> Select[Any]:
    return select(
        jobs,
        *(c for c in objects.c if c.name not in {"id"}),
    ).join_from(jobs, objects, objects.c.id == jobs.c.object_id)


def _job(row: Row[Any]) -> Job:
    return Job(
        id=row.id,
        object_id=row.object_id,
        state=row.state,
        reason=row.reason,
        model=row.model,
        request=row.request,
        attempt=row.attempt,
        failures=row.failures,
        created_at=moment(row.created_at),
        sop_instance=row.sop_instance,
        sop_class=row.sop_class,
        study=row.study,
        revision=row.revision,
        transfer_syntax=row.transfer_syntax,
        content_hash=row.content_hash,
        file=row.file,
        received_at=moment(row.received_at),
        own=row.own,
        about=About(PatientKeys(row.patient, row.patient_name, row.accession), row.study, row.sop_instance),
    )
