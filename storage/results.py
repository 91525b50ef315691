"""What we made: a report at revision n, of one job or of a study's, and the result objects that it is made of."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, case, func, insert, or_, select, update

from storage.audit import About, Audit, PatientKeys
from storage.clock import Clock, stamp
from storage.commitments import is_awaited
from storage.database import among, new_id
from storage.errors import WrongState
from storage.jobs import Job
from storage.objects import Over, Stored, of_patient
from storage.outbox import Outbox
from storage.schema import deliveries, jobs, objects, report_jobs, reports, results
from storage.studies import subject_of

REBUILT = "rebuilt from the spool"


@dataclass(frozen=True)
class Made:
    """One object that a writer made and whose file lasts."""

    writer: str
    variant: str
    sop_class: str
    sop_instance: str
    content_hash: str
    file: str
    destinations: tuple[str, ...]
    # what of the source could not be passed on as it was; names attributes, no values
    notes: tuple[str, ...] = ()


class Results:
    def __init__(self, audit: Audit, clock: Clock, outbox: Outbox) -> None:
        self._audit = audit
        self._clock = clock
        self._outbox = outbox

    def next_revision(self, tx: Connection, subject: str) -> int:
        """The number that the next report on this subject gets, from 1."""
        newest = tx.execute(select(func.max(reports.c.revision)).where(reports.c.subject == subject)).scalar()
        return (newest or 0) + 1

    def predecessors(self, tx: Connection, subject: str) -> list[tuple[str, str, str, str]]:
        """(writer, variant, SOP class, SOP instance) of what the newest report on this subject is made of."""
        newest = select(func.max(reports.c.revision)).where(reports.c.subject == subject).scalar_subquery()
        rows = tx.execute(
            select(results.c.writer, results.c.variant, results.c.sop_class, results.c.sop_instance)
            .join(reports, reports.c.id == results.c.report_id)
            .where(reports.c.subject == subject, reports.c.revision == newest, results.c.state == "made")
            .order_by(results.c.id)
        )
        return [(row.writer, row.variant, row.sop_class, row.sop_instance) for row in rows]

    def add(self, tx: Connection, job: Job, revision: int, made: Iterable[Made]) -> None:
        """A report of one job with its results, and a delivery to each of their destinations.

        Records result.made for each.
        """
        self.add_of_study(tx, job.sop_instance, [job], revision, made)

    def add_of_study(
        self, tx: Connection, subject: str, of: Sequence[Job], revision: int, made: Iterable[Made]
    ) -> None:
        """The same for a report of several jobs of one study; the records are about its first image."""
        job = of[0]
        report_id = self._report(tx, subject, revision, [one.id for one in of])
        for result in made:
            result_id = self._insert(tx, report_id, result, "")
            detail: dict[str, Any] = {
                "job": job.id,
                "writer": result.writer,
                "result": result.sop_instance,
                "revision": revision,
                "content_hash": result.content_hash,
            }
            if len(of) > 1:
                detail["images"] = [one.sop_instance for one in of]
            if result.notes:
                detail["notes"] = result.notes
            self._audit.record(tx, "result.made", about=job.about, detail=detail)
            for destination in result.destinations:
                self._outbox.queue(tx, result_id, destination)

    def quarantined(self, tx: Connection, job: Job, reason: str) -> None:
        """Records that a result of this job did not pass its check; nothing of it is kept or sent."""
        detail = {"job": job.id, "reason": reason}
        self._audit.record(tx, "result.quarantined", about=job.about, outcome="failure", detail=detail)

    def adopt(
        self,
        tx: Connection,
        result: Made,
        study: str,
        sources: Sequence[str],
        revision: int,
        *,
        of_study: bool,
        state: str,
    ) -> None:
        """A result whose rows were lost, found in the spool: its deliveries parked, since nobody knows.

        `sources`: the content hashes of the images it was made of, which are not read again: their jobs are `state`
        from now on. `of_study`: it belongs to a report on the whole study. Raises WrongState where no such image is
        known, or the result is known already.
        """
        images = self._images(tx, study, sources)
        if not images:
            raise WrongState(f"the image of result {result.sop_instance} is not in the spool")
        patient = PatientKeys(images[0].patient, images[0].patient_name)
        subject = subject_of(study, patient) if of_study else images[0].sop_instance
        unread = [image.id for image in images if image.state in {"parked", "queued"}]
        done = {"state": state, "reason": REBUILT, "finished_at": self._clock.stamp()}
        tx.execute(update(jobs).where(jobs.c.id.in_(unread)).values(done))
        report_id = self._known_report(tx, subject, revision, [image.id for image in images])
        same = (results.c.report_id == report_id) & (results.c.writer == result.writer)
        same &= results.c.variant == result.variant
        if tx.execute(
            select(results.c.id).where(same | (results.c.sop_instance == result.sop_instance))
        ).first():
            raise WrongState(f"there is a result like {result.sop_instance} already")
        result_id = self._insert(tx, report_id, result, REBUILT)
        for destination in result.destinations:
            self._outbox.queue_parked(tx, result_id, destination, f"delivery unknown: {REBUILT}")

    def expirable(
        self, tx: Connection, before: datetime, limit: int = 100, *, after: int = 0
    ) -> list[tuple[int, str]]:
        """(id, file) of results made before that moment whose deliveries have all come to an end, commitment
        included where it is asked for; with ids above `after`."""
        rows = tx.execute(
            select(results.c.id, results.c.file)
            .where(_kept_before(before), ~or_(*_held().values()), results.c.id > after)
            .order_by(results.c.id)
            .limit(limit)
        )
        return [(row.id, row.file) for row in rows]

    def over(self, tx: Connection, before: datetime, size_of: Callable[[str], int]) -> dict[str, Over]:
        """What is kept of the time before that moment, by why it stays; "" for what may go, and its bytes by
        `size_of` its files."""
        why = case(*((holds, reason) for reason, holds in _held().items()), else_="")
        found: dict[str, Over] = {}
        for reason, file, made_at in tx.execute(
            select(why, results.c.file, results.c.made_at).where(_kept_before(before))
        ):
            size = 0 if reason else size_of(file)
            found[reason] = found.get(reason, Over(0, 0, made_at)).with_one(size, made_at)
        return found

    def stored(self, tx: Connection, patient: str, study: str) -> Stored:
        """The files of results on the objects of a patient (by key), of a study, or of a patient in one study."""
        reported = (
            select(report_jobs.c.report_id)
            .join(jobs, jobs.c.id == report_jobs.c.job_id)
            .join(objects, objects.c.id == jobs.c.object_id)
            .where(of_patient(patient, study))
        )
        told = select(func.count(), func.max(results.c.made_at))
        kept = results.c.file.is_not(None) & results.c.report_id.in_(reported)
        count, newest = tx.execute(told.where(kept)).one()
        return Stored(count, newest or "")

    def forget_file(self, tx: Connection, result_id: int) -> None:
        """The result's file has expired; the row stays, so that it is known when it comes back. Records it."""
        row = tx.execute(
            select(
                results.c.sop_instance,
                results.c.content_hash,
                objects.c.sop_instance.label("source"),
                objects.c.study,
                objects.c.patient,
                objects.c.patient_name,
                objects.c.accession,
            )
            .join_from(results, report_jobs, report_jobs.c.report_id == results.c.report_id)
            .join(jobs, jobs.c.id == report_jobs.c.job_id)
            .join(objects, objects.c.id == jobs.c.object_id)
            .where(results.c.id == result_id)
        ).first()
        tx.execute(update(results).where(results.c.id == result_id).values(file=None))
        if row is not None:
            keys = PatientKeys(row.patient, row.patient_name, row.accession)
            detail = {"what": "result", "result": row.sop_instance, "content_hash": row.content_hash}
            self._audit.record(tx, "object.expired", about=About(keys, row.study, row.source), detail=detail)

    def files(self, tx: Connection) -> set[str]:
        """The spool files that have a row."""
        return set(tx.execute(select(results.c.file).where(results.c.file.is_not(None))).scalars())

    def _images(self, tx: Connection, study: str, sources: Sequence[str]) -> list[Row[Any]]:
        """The newest job of each of a study's objects with these contents, in the order of `sources`."""
        rows = tx.execute(
            select(
                jobs.c.id,
                jobs.c.state,
                objects.c.sop_instance,
                objects.c.patient,
                objects.c.patient_name,
                objects.c.content_hash,
            )
            .join(objects, objects.c.id == jobs.c.object_id)
            .where(objects.c.study == study, objects.c.content_hash.in_(sources))
            .order_by(jobs.c.id)
        )
        newest = {row.content_hash: row for row in rows}
        return [newest[source] for source in sources if source in newest]

    def _known_report(self, tx: Connection, subject: str, revision: int, of: Sequence[int]) -> int:
        """The report, made if it is not there, and these jobs behind it."""
        known = select(reports.c.id).where(reports.c.subject == subject, reports.c.revision == revision)
        report_id: int | None = tx.execute(known).scalar()
        if report_id is None:
            return self._report(tx, subject, revision, of)
        behind = select(report_jobs.c.job_id).where(report_jobs.c.report_id == report_id)
        new = set(of).difference(tx.execute(behind).scalars())
        if new:
            tx.execute(insert(report_jobs), [{"report_id": report_id, "job_id": one} for one in new])
        return report_id

    def _report(self, tx: Connection, subject: str, revision: int, of: Sequence[int]) -> int:
        now = self._clock.stamp()
        row = tx.execute(insert(reports).values(subject=subject, revision=revision, created_at=now))
        tx.execute(insert(report_jobs), [{"report_id": new_id(row), "job_id": job_id} for job_id in of])
        return new_id(row)

    def _insert(self, tx: Connection, report_id: int, result: Made, reason: str) -> int:
        row = tx.execute(
            insert(results).values(
                report_id=report_id,
                writer=result.writer,
                variant=result.variant,
                state="made",
                reason=reason,
                sop_class=result.sop_class,
                sop_instance=result.sop_instance,
                content_hash=result.content_hash,
                file=result.file,
                made_at=self._clock.stamp(),
            )
        )
        return new_id(row)


def _kept_before(before: datetime) -> ColumnElement[bool]:
    return results.c.file.is_not(None) & (results.c.made_at < stamp(before))


def _held() -> dict[str, ColumnElement[bool]]:
    """Why a result stays though its time is over; the first that holds is told."""
    sent = select(deliveries.c.id).where(deliveries.c.result_id == results.c.id).correlate(results)
    return {
        "parked": sent.where(among(deliveries.c.state, "parked")).exists(),
        "undelivered": sent.where(among(deliveries.c.state, "waiting", "sending")).exists(),
        "uncommitted": sent.where(is_awaited(deliveries.c.id)).exists(),
    }
