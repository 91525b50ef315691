"""What waits for one report on a whole study: the images of one patient under one Study Instance UID.

    an image was read ─► waiting ──claim, when due──► running ──► done ─ another image was read ─► waiting
                            ▲                            │
                            └────── its worker died ─────┘ three times, or no report can be made: parked

Due is a study when nothing of it has been read for a quiet period and nothing of it is queued; at the limit it is due
in any case. An image that is read while its study is being reported makes it wait again. When a study parks, those
of its jobs that no report holds are parked with it: `hilum jobs` shows them, and a retry of one brings the study back.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, case, func, insert, select, update

from storage.audit import About, Actor, Audit, PatientKeys
from storage.clock import Clock, moment, stamp
from storage.errors import WrongState
from storage.jobs import LIVES, Job, Jobs
from storage.schema import jobs, objects, report_jobs, studies


@dataclass(frozen=True)
class PendingStudy:
    """A claimed study: all its images that were read, the newest reading of each, oldest image first."""

    id: int
    subject: str
    images: tuple[Job, ...]
    last_life: bool
    about: About


def subject_of(study: str, patient: PatientKeys) -> str:
    """What `reports` call a study's report: images under one UID but of two patients have two."""
    return hashlib.sha256("\0".join(["study", study, patient.id, patient.name]).encode()).hexdigest()


class Studies:
    def __init__(self, audit: Audit, clock: Clock, queue: Jobs) -> None:
        self._audit = audit
        self._clock = clock
        self._jobs = queue

    def wait(self, tx: Connection, job: Job, quiet_seconds: float, limit_seconds: float) -> None:
        """An image was read: its study's report is due after a quiet period, the limit counting from the first image
        that no report holds. Records study.waiting."""
        patient = job.about.patient
        subject = subject_of(job.study, patient)
        row = tx.execute(select(studies).where(studies.c.subject == subject)).first()
        now = self._clock.now()
        if row is None or row.first_at is None:
            first, limit = now, now + timedelta(seconds=limit_seconds)
        else:
            first, limit = moment(row.first_at), moment(row.limit_at)
        due = stamp(min(now + timedelta(seconds=quiet_seconds), limit))
        values: dict[str, Any] = {"first_at": stamp(first), "limit_at": stamp(limit), "due_at": due}
        if row is None:
            values |= {"state": "waiting", "reason": "", "attempt": 0, "failures": 0}
            values |= {"study": job.study, "patient": patient.id, "patient_name": patient.name}
            tx.execute(insert(studies).values(subject=subject, **values))
        else:
            if row.state in {"done", "parked"}:
                values |= {"state": "waiting", "reason": "", "failures": 0}
            tx.execute(update(studies).where(studies.c.id == row.id).values(values))
        about = About(patient, job.study, job.sop_instance)
        self._audit.record(tx, "study.waiting", about=about, detail={"job": job.id, "due": due})

    def claim(
        self, tx: Connection, owner: str, lease_seconds: float, seconds_an_image: float
    ) -> PendingStudy | None:
        """The study whose report is due longest, now running for `owner`. Records study.claimed."""
        now = self._clock.stamp()
        unread = (
            select(jobs.c.id)
            .join(objects, objects.c.id == jobs.c.object_id)
            .where(_of_study(), jobs.c.state.in_(("queued", "running")))
            .correlate(studies)
        )
        row = tx.execute(
            select(studies)
            .where(studies.c.state == "waiting", studies.c.due_at <= now)
            .where((studies.c.limit_at <= now) | ~unread.exists())
            .order_by(studies.c.due_at, studies.c.id)
            .limit(1)
        ).first()
        if row is None:
            return None
        claimed = self._pending(tx, row)
        lease = self._clock.monotonic() + lease_seconds + seconds_an_image * len(claimed.images)
        values = {"state": "running", "owner": owner, "lease_until": lease, "first_at": None}
        tx.execute(update(studies).where(studies.c.id == row.id).values(attempt=row.attempt + 1, **values))
        detail = {"study": row.id, "attempt": row.attempt + 1, "images": len(claimed.images)}
        self._audit.record(tx, "study.claimed", about=claimed.about, actor=Actor(owner), detail=detail)
        return claimed

    def reported(
        self,
        tx: Connection,
        study: PendingStudy,
        owner: str,
        left_out: Mapping[int, str],
        detail: dict[str, Any],
    ) -> None:
        """running -> done, or waiting again where an image came meanwhile. Raises WrongState if `owner` lost it.

        `left_out`: job -> why its image is not in the report; it is parked if it is in no earlier one either.
        """
        self._end(tx, study, owner, "done", "")
        unreported = self._unreported(tx, study)
        told = []
        for job in study.images:
            if reason := left_out.get(job.id):
                told.append({"sop": job.sop_instance, "reason": reason})
                if job.id in unreported:
                    self._jobs.take_back(tx, job.id, f"not in the study's report: {reason}")
        detail = {"study": study.id, **detail, **({"left_out": told} if told else {})}
        self._audit.record(tx, "study.reported", about=study.about, actor=Actor(owner), detail=detail)

    def park(self, tx: Connection, study: PendingStudy, owner: str, reason: str) -> None:
        """running -> parked, with those of its jobs that no report holds. Raises WrongState if `owner` lost it."""
        self._end(tx, study, owner, "parked", reason)
        self._give_up(tx, study, reason)

    def failed(self, tx: Connection, study: PendingStudy, owner: str, reason: str) -> None:
        """An attempt ended in an I/O error of ours: again; the third parks."""
        for row in self._running(tx, (studies.c.id == study.id) & (studies.c.owner == owner)):
            self._count(tx, row, reason)

    def died(self, tx: Connection, owner: str) -> None:
        """The process died under a living supervisor: its study is tried again, or parked at the third time."""
        for row in self._running(tx, studies.c.owner == owner):
            self._count(tx, row, "the reporting process died on this study three times")

    def expired(self, tx: Connection) -> list[str]:
        """Owners of running studies whose lease has run out."""
        late = (
            select(studies.c.owner)
            .distinct()
            .where(studies.c.state == "running", studies.c.lease_until < self._clock.monotonic())
        )
        return [owner for owner in tx.execute(late).scalars() if owner]

    def recover(self, tx: Connection) -> int:
        """At a start of the node: running -> waiting, due at once, nothing counted; how many."""
        back = tx.execute(update(studies).where(studies.c.state == "running").values(self._again()))
        return back.rowcount

    def counts(self, tx: Connection) -> dict[str, int]:
        rows = tx.execute(select(studies.c.state, func.count().label("n")).group_by(studies.c.state))
        return {row.state: row.n for row in rows}

    def _pending(self, tx: Connection, row: Row[Any]) -> PendingStudy:
        images = self._jobs.get(tx, self._newest_readings(tx, row))
        accession = images[0].about.patient.accession if images else ""
        return PendingStudy(
            id=row.id,
            subject=row.subject,
            images=tuple(images),
            last_life=row.failures + 1 >= LIVES,
            about=About(PatientKeys(row.patient, row.patient_name, accession), row.study),
        )

    def _newest_readings(self, tx: Connection, row: Row[Any]) -> list[int]:
        """One done job an image: of several revisions or requests the last."""
        done = tx.execute(
            select(jobs.c.id, objects.c.sop_instance)
            .join_from(jobs, objects, objects.c.id == jobs.c.object_id)
            .join(studies, _of_study())
            .where(studies.c.id == row.id, jobs.c.state == "done")
            .order_by(objects.c.revision, jobs.c.id)
        )
        return list({found.sop_instance: found.id for found in done}.values())

    def _unreported(self, tx: Connection, study: PendingStudy) -> set[int]:
        ids = {job.id for job in study.images}
        held = tx.execute(select(report_jobs.c.job_id).where(report_jobs.c.job_id.in_(ids)))
        return ids.difference(held.scalars())

    def _give_up(self, tx: Connection, study: PendingStudy, reason: str) -> None:
        for job_id in sorted(self._unreported(tx, study)):
            self._jobs.take_back(tx, job_id, reason)
        detail = {"study": study.id, "reason": reason}
        self._audit.record(tx, "study.parked", about=study.about, outcome="failure", detail=detail)

    def _end(self, tx: Connection, study: PendingStudy, owner: str, state: str, reason: str) -> None:
        waits_again = studies.c.first_at.is_not(None)
        ended = tx.execute(
            update(studies)
            .where(studies.c.id == study.id, studies.c.state == "running", studies.c.owner == owner)
            .values(
                state=case((waits_again, "waiting"), else_=state),
                reason=case((waits_again, ""), else_=reason),
                failures=0,
                owner=None,
                lease_until=None,
            )
        )
        if ended.rowcount != 1:
            raise WrongState(f"study {study.id} is no longer running for {owner}")

    def _running(self, tx: Connection, which: Any) -> Sequence[Row[Any]]:
        return tx.execute(select(studies).where(studies.c.state == "running", which)).all()

    def _count(self, tx: Connection, row: Row[Any], reason: str) -> None:
        if row.failures + 1 < LIVES:
            again = {**self._again(), "failures": row.failures + 1, "reason": reason}
            tx.execute(update(studies).where(studies.c.id == row.id).values(again))
            return
        self.park(tx, self._pending(tx, row), row.owner, reason)

    def _again(self) -> dict[str, Any]:
        now = self._clock.stamp()
        first = func.coalesce(studies.c.first_at, now)
        return {"state": "waiting", "owner": None, "lease_until": None, "first_at": first, "due_at": now}


def _of_study() -> Any:
    """An object's and a study's row belong together."""
    return (
        (objects.c.study == studies.c.study)
        & (objects.c.patient == studies.c.patient)
        & (objects.c.patient_name == studies.c.patient_name)
    )
