"""Where a study stands: its jobs and deliveries as the queues have them at this moment.

The log alone can't say it: that a result waits for a destination is no event until it is tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from storage.schema import deliveries, jobs, objects, report_jobs, results, studies

OPEN = ("queued", "running", "waiting", "sending")


@dataclass(frozen=True)
class JobNow:
    id: int
    state: str
    reason: str
    sop: str


@dataclass(frozen=True)
class DeliveryNow:
    """`due`: a stamp, when the next attempt is made."""

    id: int
    state: str
    reason: str
    destination: str
    writer: str
    result: str
    due: str


@dataclass(frozen=True)
class Now:
    """`study_due`: a stamp; when the study's one report is due, where it is waited for."""

    jobs: Sequence[JobNow] = ()
    deliveries: Sequence[DeliveryNow] = ()
    study_due: str = ""
    study_parked: str = ""

    @property
    def is_known(self) -> bool:
        return bool(self.jobs)


def look(tx: Connection, study: str) -> Now:
    """By the indexes of study, job and report."""
    if not study:
        return Now()
    read = [
        JobNow(row.id, row.state, row.reason, row.sop_instance)
        for row in tx.execute(
            select(jobs.c.id, jobs.c.state, jobs.c.reason, objects.c.sop_instance)
            .join_from(objects, jobs, jobs.c.object_id == objects.c.id)
            .where(objects.c.study == study, objects.c.own.is_(False))
            .order_by(jobs.c.id)
        )
    ]
    sent = tx.execute(
        select(
            deliveries.c.id,
            deliveries.c.state,
            deliveries.c.reason,
            deliveries.c.destination,
            deliveries.c.next_attempt_at,
            results.c.writer,
            results.c.sop_instance,
        )
        .join_from(objects, jobs, jobs.c.object_id == objects.c.id)
        .join(report_jobs, report_jobs.c.job_id == jobs.c.id)
        .join(results, results.c.report_id == report_jobs.c.report_id)
        .join(deliveries, deliveries.c.result_id == results.c.id)
        .where(objects.c.study == study)
        .distinct()
        .order_by(deliveries.c.id)
    )
    delivered = [
        DeliveryNow(r.id, r.state, r.reason, r.destination, r.writer, r.sop_instance, r.next_attempt_at)
        for r in sent
    ]
    due = parked = ""
    if read:
        # few: a study waits only where one report is made of all its images
        of = select(studies.c.state, studies.c.reason, studies.c.due_at).where(
            studies.c.study == study, studies.c.state.in_(("waiting", "running", "parked"))
        )
        for row in tx.execute(of):
            due, parked = (due, row.reason) if row.state == "parked" else (row.due_at, parked)
    return Now(read, delivered, due, parked)
