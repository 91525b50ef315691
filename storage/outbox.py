"""What waits to be delivered: one delivery is one result on its way to one destination.

waiting ──claim──► sending ──► delivered (──► committed, or waiting again: commitments.py) | parked
   ▲                  │
   └── failed, later ─┘           parked ──retry──► waiting,  ──discard──► discarded
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from storage.audit import About, Actor, Audit, Entry, PatientKeys
from storage.clock import Clock, moment, stamp
from storage.database import new_id
from storage.errors import WrongState
from storage.schema import deliveries, destinations, jobs, objects, report_jobs, results


@dataclass(frozen=True)
class Delivery:
    """One result on its way to one destination."""

    id: int
    destination: str
    state: str
    reason: str
    attempt: int
    result_id: int
    writer: str
    variant: str
    sop_class: str
    sop_instance: str
    file: str | None
    created_at: datetime
    next_attempt_at: datetime
    about: About


@dataclass(frozen=True)
class DestinationState:
    """`state`: up, down (the last try did not reach it) or unknown (never tried)."""

    state: str
    waiting: int
    last_success: datetime | None
    last_error: str | None


class Outbox:
    def __init__(self, audit: Audit, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock

    def queue(self, tx: Connection, result_id: int, destination: str) -> None:
        """A result waits for a destination, due at once."""
        self._insert(tx, result_id, destination, "waiting", "")

    def queue_parked(self, tx: Connection, result_id: int, destination: str, reason: str) -> None:
        """A result that a person must decide about before it goes anywhere. Records delivery.parked."""
        (parked,) = self.get(tx, [self._insert(tx, result_id, destination, "parked", reason)])
        self._tell(tx, parked, "delivery.parked", outcome="failure", reason=reason)

    def claim(self, tx: Connection, destination: str, owner: str, lease_seconds: float) -> Delivery | None:
        """The oldest delivery that is due, now sending for `owner`. Records delivery.attempted."""
        claimed = self.claim_batch(tx, destination, owner, lease_seconds, 1)
        return claimed[0] if claimed else None

    def claim_batch(
        self, tx: Connection, destination: str, owner: str, lease_seconds: float, most: int
    ) -> list[Delivery]:
        """The oldest deliveries that are due, now sending for `owner`. Records delivery.attempted for each."""
        due = tx.execute(
            select(deliveries.c.id)
            .where(
                deliveries.c.destination == destination,
                deliveries.c.state == "waiting",
                deliveries.c.next_attempt_at <= self._clock.stamp(),
            )
            .order_by(deliveries.c.id)
            .limit(most)
        )
        ids = list(due.scalars())
        if not ids:
            return []
        tx.execute(
            update(deliveries)
            .where(deliveries.c.id.in_(ids))
            .values(
                state="sending",
                owner=owner,
                lease_until=self._clock.monotonic() + lease_seconds,
                attempt=deliveries.c.attempt + 1,
            )
        )
        claimed = self.get(tx, ids)
        self._audit.record_all(
            tx, [_entry(delivery, "delivery.attempted", attempt=delivery.attempt) for delivery in claimed]
        )
        return claimed

    def returned(self, tx: Connection, batch: Sequence[Delivery]) -> None:
        """Claimed, but not tried: waiting as before, the attempt not counted. Records delivery.returned for each."""
        back = tx.execute(
            update(deliveries)
            .where(deliveries.c.id.in_([delivery.id for delivery in batch]), deliveries.c.state == "sending")
            .values(state="waiting", owner=None, lease_until=None, attempt=deliveries.c.attempt - 1)
            .returning(deliveries.c.id)
        )
        ids = set(back.scalars())
        self._audit.record_all(
            tx, [_entry(delivery, "delivery.returned") for delivery in batch if delivery.id in ids]
        )

    def delivered(self, tx: Connection, delivery: Delivery, detail: dict[str, Any]) -> None:
        """The destination has it. `detail` tells how (status, seconds). Raises WrongState."""
        if not self.delivered_batch(tx, [(delivery, detail)]):
            raise WrongState(f"delivery {delivery.id} is no longer being sent")

    def delivered_batch(self, tx: Connection, done: Sequence[tuple[Delivery, dict[str, Any]]]) -> set[int]:
        """`delivered` of several to one destination; the ids of those that were still being sent. Others are left."""
        ended = tx.execute(
            update(deliveries)
            .where(
                deliveries.c.id.in_([delivery.id for delivery, _ in done]), deliveries.c.state == "sending"
            )
            .values(
                state="delivered", reason="", owner=None, lease_until=None, finished_at=self._clock.stamp()
            )
            .returning(deliveries.c.id)
        )
        ids = set(ended.scalars())
        if ids:
            self._seen(tx, done[0][0].destination, reached=True, success=True)
        self._audit.record_all(
            tx,
            [_entry(delivery, "delivery.delivered", **how) for delivery, how in done if delivery.id in ids],
        )
        return ids

    def postponed(self, tx: Connection, delivery: Delivery, reason: str, seconds: float) -> None:
        """It did not get through; again in `seconds`. Records delivery.postponed."""
        again = stamp(self._clock.now() + timedelta(seconds=seconds))
        self._end(tx, delivery, "waiting", reason, next_attempt_at=again, finished_at=None)
        self._seen(tx, delivery.destination, reached=False, error=reason)
        wait = round(seconds, 1)
        self._tell(tx, delivery, "delivery.postponed", outcome="failure", reason=reason, seconds=wait)

    def parked(self, tx: Connection, delivery: Delivery, reason: str, *, reached: bool | None = True) -> None:
        """It will not get through without a person. Records delivery.parked.

        `reached` None: the destination was not tried, so nothing new is known of it.
        """
        self._end(tx, delivery, "parked", reason)
        if reached is not None:
            self._seen(tx, delivery.destination, reached=reached, error=reason)
        self._tell(tx, delivery, "delivery.parked", outcome="failure", reason=reason)

    def recover(self, tx: Connection, owner: str | None = None) -> int:
        """sending -> waiting (of one dead owner, or at a start of everybody), due at once; how many.

        At a start of the node everything that waits is due at once: whoever restarts it wants to see it try.
        """
        mine = deliveries.c.owner == owner if owner else deliveries.c.owner.is_not(None)
        back = tx.execute(
            update(deliveries)
            .where(deliveries.c.state == "sending", mine)
            .values(state="waiting", owner=None, lease_until=None, next_attempt_at=self._clock.stamp())
        )
        if owner is None:
            tx.execute(
                update(deliveries)
                .where(deliveries.c.state == "waiting")
                .values(next_attempt_at=self._clock.stamp())
            )
        return back.rowcount

    def retry(self, tx: Connection, delivery_id: int, actor: Actor) -> None:
        """parked or waiting -> waiting, due at once. Raises WrongState."""
        delivery = self._operate(
            tx, delivery_id, ("parked", "waiting"), "waiting", finished_at=None, reason=""
        )
        self._tell(tx, delivery, "delivery.retried", actor=actor)

    def discard(self, tx: Connection, delivery_id: int, actor: Actor) -> None:
        """parked or waiting -> discarded. Raises WrongState."""
        delivery = self._operate(tx, delivery_id, ("parked", "waiting"), "discarded")
        self._tell(tx, delivery, "delivery.discarded", actor=actor)

    def next_due(self, tx: Connection, destination: str) -> datetime | None:
        """When the next waiting delivery is due."""
        found = tx.execute(
            select(func.min(deliveries.c.next_attempt_at)).where(
                deliveries.c.destination == destination, deliveries.c.state == "waiting"
            )
        ).scalar()
        return moment(found) if found else None

    def retried_since(self, tx: Connection, destination: str, since: datetime) -> bool:
        """Has a person asked for one of the destination's deliveries after `since`?"""
        found = tx.execute(
            select(deliveries.c.id)
            .where(
                deliveries.c.destination == destination,
                deliveries.c.state == "waiting",
                deliveries.c.next_attempt_at > stamp(since),
                deliveries.c.next_attempt_at <= self._clock.stamp(),
                # tried before, and the reason of the failure taken off again: `retry` alone leaves a row so
                deliveries.c.attempt > 0,
                deliveries.c.reason == "",
            )
            .limit(1)
        )
        return found.scalar() is not None

    def get(self, tx: Connection, ids: Sequence[int]) -> list[Delivery]:
        return [
            _delivery(r)
            for r in tx.execute(_select().where(deliveries.c.id.in_(ids)).order_by(deliveries.c.id))
        ]

    def listing(
        self, tx: Connection, state: str = "", *, after: int = 0, limit: int = 1000
    ) -> list[Delivery]:
        query = _select().where(deliveries.c.id > after).order_by(deliveries.c.id).limit(limit)
        return [
            _delivery(row) for row in tx.execute(query.where(deliveries.c.state == state) if state else query)
        ]

    def counts(self, tx: Connection) -> dict[str, int]:
        rows = tx.execute(select(deliveries.c.state, func.count().label("n")).group_by(deliveries.c.state))
        return {row.state: row.n for row in rows}

    def destination_states(self, tx: Connection, names: Iterable[str]) -> dict[str, DestinationState]:
        """How each of the named destinations does."""
        counted = tx.execute(
            select(deliveries.c.destination, func.count().label("n"))
            .where(deliveries.c.state.in_(("waiting", "sending")))
            .group_by(deliveries.c.destination)
        )
        waiting = {row.destination: row.n for row in counted}
        seen = {row.name: row for row in tx.execute(select(destinations))}
        found = {}
        for name in names:
            row = seen.get(name)
            found[name] = DestinationState(
                state="unknown" if row is None else "up" if row.reached else "down",
                waiting=waiting.get(name, 0),
                last_success=moment(row.last_success) if row and row.last_success else None,
                last_error=row.last_error if row else None,
            )
        return found

    def _insert(self, tx: Connection, result_id: int, destination: str, state: str, reason: str) -> int:
        now = self._clock.stamp()
        return new_id(
            tx.execute(
                insert(deliveries).values(
                    result_id=result_id,
                    destination=destination,
                    state=state,
                    attempt=0,
                    next_attempt_at=now,
                    reason=reason,
                    created_at=now,
                    finished_at=None if state == "waiting" else now,
                )
            )
        )

    def _seen(
        self,
        tx: Connection,
        destination: str,
        *,
        reached: bool,
        success: bool = False,
        error: str | None = None,
    ) -> None:
        now = self._clock.stamp()
        values: dict[str, Any] = {"reached": reached, "last_try": now, "last_error": error}
        if success:
            values["last_success"] = now
        tx.execute(
            upsert(destinations)
            .values(name=destination, **values)
            .on_conflict_do_update(index_elements=["name"], set_=values)
        )

    def _end(self, tx: Connection, delivery: Delivery, state: str, reason: str, **values: Any) -> None:
        values = {"finished_at": self._clock.stamp(), **values}
        ended = tx.execute(
            update(deliveries)
            .where(deliveries.c.id == delivery.id, deliveries.c.state == "sending")
            .values(state=state, reason=reason, owner=None, lease_until=None, **values)
        )
        if ended.rowcount != 1:
            raise WrongState(f"delivery {delivery.id} is no longer being sent")

    def _operate(
        self, tx: Connection, delivery_id: int, from_states: tuple[str, ...], state: str, **values: Any
    ) -> Delivery:
        changed = tx.execute(
            update(deliveries)
            .where(deliveries.c.id == delivery_id, deliveries.c.state.in_(from_states))
            .values(state=state, next_attempt_at=self._clock.stamp(), **values)
        )
        found = self.get(tx, [delivery_id])
        if changed.rowcount != 1:
            wanted = " or ".join(from_states)
            raise WrongState(
                f"delivery {delivery_id} is {found[0].state}, not {wanted}"
                if found
                else f"there is no delivery {delivery_id}"
            )
        return found[0]

    def _tell(
        self,
        tx: Connection,
        delivery: Delivery,
        event: str,
        *,
        actor: Actor | None = None,
        outcome: str = "success",
        **detail: Any,
    ) -> None:
        self._audit.record_all(tx, [_entry(delivery, event, actor=actor, outcome=outcome, **detail)])


def _entry(
    delivery: Delivery, event: str, *, actor: Actor | None = None, outcome: str = "success", **detail: Any
) -> Entry:
    told = {
        "delivery": delivery.id,
        "destination": delivery.destination,
        "writer": delivery.writer,
        "result": delivery.sop_instance,
        **detail,
    }
    return Entry(event, delivery.about, actor or Actor(), outcome, told)


def _select() -> Select[Any]:
    """Deliveries with their result and, through the report's first job, the source object."""
    first_job = (
        select(func.min(report_jobs.c.job_id))
        .where(report_jobs.c.report_id == results.c.report_id)
        .correlate(results)
        .scalar_subquery()
    )
    return (
        select(
            deliveries,
            results.c.writer,
            results.c.variant,
            results.c.sop_class,
            results.c.sop_instance,
            results.c.file,
            objects.c.study,
            objects.c.sop_instance.label("source"),
            objects.c.patient,
            objects.c.patient_name,
            objects.c.accession,
        )
        .join_from(deliveries, results, results.c.id == deliveries.c.result_id)
        .join(jobs, jobs.c.id == first_job)
        .join(objects, objects.c.id == jobs.c.object_id)
    )


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        id=row.id,
        destination=row.destination,
        state=row.state,
        reason=row.reason,
        attempt=row.attempt,
        result_id=row.result_id,
        writer=row.writer,
        variant=row.variant,
        sop_class=row.sop_class,
        sop_instance=row.sop_instance,
        file=row.file,
        created_at=moment(row.created_at),
        next_attempt_at=moment(row.next_attempt_at),
        about=About(PatientKeys(row.patient, row.patient_name, row.accession), row.study, row.source),
    )
