"""Storage commitment: what destinations are asked to commit to, and the reports that this node owes its peers.

    delivered: due ──ask──► asked ──► committed
                ▲             ├──► failed, unanswered     the delivery waits again: sent and asked once more
                └── not taken ┘         └──► parked       with its delivery, after MOST_REPEATS

A row of `commitments` is one round of one delivery. Nothing here says that something is committed but a report that
names it under the transaction in which it was asked; one that comes after its time still counts.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from storage.audit import About, Actor, Audit
from storage.clock import Clock, moment, stamp
from storage.database import among
from storage.errors import WrongState
from storage.outbox import Delivery, Outbox
from storage.schema import commitment_reports, commitments, deliveries, results

AGAIN_SECONDS = (60.0, 300.0, 900.0)
"""How long a delivery waits that was not committed; as often it is sent again, then it is parked."""
MOST_REFUSALS = 50
"""So often in a row a destination may refuse to be asked."""
LIMIT = 200
"""So many instances are asked for with one message."""

Instance = tuple[str, str]
"""SOP Class and SOP Instance UID."""


@dataclass(frozen=True)
class Question:
    """What is asked of one destination under one transaction UID; `ids`: the rows, in the order of `instances`."""

    transaction: str
    destination: str
    ids: tuple[int, ...]
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class Report:
    """An N-EVENT-REPORT that a peer waits for. `data`: its data set, Implicit VR Little Endian."""

    id: int
    ae_title: str
    host: str
    port: int
    transaction: str
    data: bytes
    attempt: int
    created_at: str


@dataclass(frozen=True)
class Awaited:
    """What is open with a destination: how many delivered results, and why it was not asked (empty: it was)."""

    results: int = 0
    trouble: str = ""


def is_awaited(delivery_id: ColumnElement[int]) -> ColumnElement[bool]:
    """Is the commitment of this delivery open?"""
    of = select(commitments.c.id).where(commitments.c.delivery_id == delivery_id)
    return of.where(among(commitments.c.state, "due", "asked")).correlate(deliveries).exists()


class Commitments:
    """What is asked of destinations."""

    def __init__(self, audit: Audit, clock: Clock, outbox: Outbox) -> None:
        self._audit = audit
        self._clock = clock
        self._outbox = outbox

    def owe(self, tx: Connection, delivery_id: int) -> None:
        """A delivery has reached a destination that is to commit to it: in the transaction that says so."""
        last = tx.execute(
            select(commitments.c.state, commitments.c.failures)
            .where(commitments.c.delivery_id == delivery_id)
            .order_by(commitments.c.id.desc())
            .limit(1)
        ).first()
        # parked and tried again by a person, it begins anew
        repeats = last.failures + 1 if last is not None and last.state in {"failed", "unanswered"} else 0
        tx.execute(
            insert(commitments).values(
                delivery_id=delivery_id, state="due", failures=repeats, refusals=0, reason=""
            )
        )

    def is_due(self, tx: Connection, destination: str) -> bool:
        """Is there anything to ask this destination for?"""
        return tx.execute(_of(destination, commitments.c.state == "due").limit(1)).first() is not None

    def ask(
        self, tx: Connection, destination: str, transaction: str, seconds: float, limit: int = LIMIT
    ) -> Question | None:
        """What is due, oldest first, now asked under this transaction UID; answered within `seconds`.

        To be committed before the message goes out. Records commitment.requested for each source image.
        """
        rows = tx.execute(
            _of(destination, commitments.c.state == "due").order_by(commitments.c.id).limit(limit)
        ).all()
        if not rows:
            return None
        ids = tuple(row.id for row in rows)
        until = stamp(self._clock.now() + timedelta(seconds=seconds))
        asked = {"state": "asked", "transaction_uid": transaction, "until": until}
        tx.execute(update(commitments).where(commitments.c.id.in_(ids)).values(asked))
        by_source: dict[About, list[str]] = {}
        for delivery in self._outbox.get(tx, [row.delivery_id for row in rows]):
            by_source.setdefault(delivery.about, []).append(delivery.sop_instance)
        for about, instances in by_source.items():
            detail = {"destination": destination, "transaction": transaction, "results": instances}
            self._audit.record(tx, "commitment.requested", about=about, detail=detail)
        return Question(transaction, destination, ids, tuple((r.sop_class, r.sop_instance) for r in rows))

    def taken(self, tx: Connection, question: Question) -> None:
        """The destination has taken the request; its report is awaited."""
        tx.execute(
            update(commitments).where(commitments.c.id.in_(question.ids)).values(refusals=0, reason="")
        )
        self._note(tx, question.ids, "")

    def postponed(self, tx: Connection, question: Question, reason: str) -> None:
        """The request did not get through; it is due again."""
        tx.execute(update(commitments).where(_still(question)).values({**_DUE, "reason": reason}))
        self._note(tx, question.ids, f"not committed yet: {reason}")

    def refused(self, tx: Connection, question: Question, reason: str) -> None:
        """The destination does not take such requests: due again, but MOST_REFUSALS times only, then parked.

        The deliveries stay delivered, which is true, and say why they are not committed. Records commitment.refused.
        """
        detail = {
            "destination": question.destination, "transaction": question.transaction,
            "results": len(question.ids), "reason": reason,
        }  # fmt: skip
        self._audit.record(tx, "commitment.refused", outcome="failure", detail=detail)
        told = {**_DUE, "reason": reason, "refusals": commitments.c.refusals + 1}
        tx.execute(update(commitments).where(_still(question)).values(told))
        self._note(tx, question.ids, f"not committed yet: {reason}")
        tired = commitments.c.id.in_(question.ids) & (commitments.c.refusals >= MOST_REFUSALS)
        for row in tx.execute(_select().where(tired, commitments.c.state == "due")).all():
            self._park(tx, row, reason)

    def reported(
        self,
        tx: Connection,
        transaction: str,
        committed: Collection[Instance],
        failed: Mapping[Instance, str],
        actor: Actor,
    ) -> int:
        """What a destination says about a transaction of ours; how many instances of it were meant.

        What the report does not name stays asked. Records delivery.committed, commitment.failed. Raises WrongState
        where we have asked nothing under this UID.
        """
        rows = tx.execute(_select().where(commitments.c.transaction_uid == transaction)).all()
        if not rows:
            raise WrongState("there is no such transaction")
        meant = 0
        for row in rows:
            instance = (row.sop_class, row.sop_instance)
            if row.state == "asked" and instance in failed:
                self._failed(tx, row, "failed", failed[instance], actor)
            elif row.state in {"asked", "unanswered", "parked"} and instance in committed:
                self._committed(tx, row, actor)
            meant += instance in failed or instance in committed
        return meant

    def is_answered(self, tx: Connection, transaction: str) -> bool:
        """Has a report come on all that was asked under this UID?"""
        still = (commitments.c.transaction_uid == transaction) & (commitments.c.state == "asked")
        return tx.execute(select(commitments.c.id).where(still).limit(1)).first() is None

    def overdue(self, tx: Connection, destination: str, seconds: float, limit: int = LIMIT) -> int:
        """Of what was asked and not answered in time the deliveries wait again; how many. Records commitment.failed."""
        late = (commitments.c.state == "asked") & (commitments.c.until <= self._clock.stamp())
        rows = tx.execute(_of(destination, late).order_by(commitments.c.id).limit(limit)).all()
        for row in rows:
            self._failed(tx, row, "unanswered", f"nothing heard of it within {seconds:.0f} s", Actor())
        return len(rows)

    def is_overdue(self, tx: Connection, destination: str) -> bool:
        """Is there anything for `overdue` to do?"""
        late = (commitments.c.state == "asked") & (commitments.c.until <= self._clock.stamp())
        return tx.execute(_of(destination, late).limit(1)).first() is not None

    def withdraw(self, tx: Connection, asked_of: Collection[str]) -> int:
        """Nobody but these destinations is asked any more: what is open with others stays delivered; how many.

        Records commitment.failed.
        """
        is_open = commitments.c.state.in_(("due", "asked")) & deliveries.c.destination.not_in(asked_of)
        rows = tx.execute(_select().where(is_open)).all()
        reason = "commitment is no longer asked of this destination"
        for row in rows:
            self._end(tx, row, "withdrawn", reason)
            self._tell(tx, row, "commitment.failed", Actor(), outcome="failure", reason=reason)
        self._note(tx, [row.id for row in rows], "")
        return len(rows)

    def awaited(self, tx: Connection) -> dict[str, Awaited]:
        """What is open, by destination."""
        counted = tx.execute(
            select(
                deliveries.c.destination, func.count().label("n"), func.max(commitments.c.reason).label("why")
            )
            .join(deliveries, deliveries.c.id == commitments.c.delivery_id)
            .where(commitments.c.state.in_(("due", "asked")))
            .group_by(deliveries.c.destination)
        )
        return {row.destination: Awaited(row.n, row.why) for row in counted}

    def _committed(self, tx: Connection, row: Row[Any], actor: Actor) -> None:
        """Also where it came too late and the result waits to be sent once more, or was parked for want of this."""
        ended = tx.execute(
            update(deliveries)
            .where(
                deliveries.c.id == row.delivery_id, deliveries.c.state.in_(("delivered", "waiting", "parked"))
            )
            .values(state="committed", reason="", finished_at=self._clock.stamp())
        )
        if ended.rowcount != 1:
            return
        tx.execute(
            update(commitments)
            .where(commitments.c.delivery_id == row.delivery_id, commitments.c.state.in_(("due", "asked")))
            .values(state="withdrawn")
        )
        self._end(tx, row, "committed", "")
        self._tell(tx, row, "delivery.committed", actor)

    def _failed(self, tx: Connection, row: Row[Any], state: str, reason: str, actor: Actor) -> None:
        self._tell(
            tx, row, "commitment.failed", actor, outcome="failure", reason=reason, failures=row.failures + 1
        )
        if row.failures >= len(AGAIN_SECONDS):
            self._park(tx, row, reason)
            return
        again = stamp(self._clock.now() + timedelta(seconds=AGAIN_SECONDS[row.failures]))
        tx.execute(
            update(deliveries)
            .where(deliveries.c.id == row.delivery_id, deliveries.c.state == "delivered")
            .values(
                state="waiting", reason=f"not committed: {reason}", next_attempt_at=again, finished_at=None
            )
        )
        self._end(tx, row, state, reason)

    def _park(self, tx: Connection, row: Row[Any], reason: str) -> None:
        told = f"delivered, not committed: {reason}"
        parked = tx.execute(
            update(deliveries)
            .where(deliveries.c.id == row.delivery_id, deliveries.c.state == "delivered")
            .values(state="parked", reason=told, finished_at=self._clock.stamp())
        )
        self._end(tx, row, "parked", reason)
        if parked.rowcount == 1:
            self._tell(tx, row, "delivery.parked", Actor(), outcome="failure", reason=told)

    def _end(self, tx: Connection, row: Row[Any], state: str, reason: str) -> None:
        tx.execute(
            update(commitments)
            .where(commitments.c.id == row.id)
            .values(state=state, reason=reason, until=None)
        )

    def _note(self, tx: Connection, ids: Iterable[int], reason: str) -> None:
        """Why what was delivered is not committed, for whoever lists deliveries."""
        of = select(commitments.c.delivery_id).where(commitments.c.id.in_(tuple(ids)))
        tx.execute(
            update(deliveries)
            .where(deliveries.c.id.in_(of), deliveries.c.state == "delivered", deliveries.c.reason != reason)
            .values(reason=reason)
        )

    def _tell(
        self, tx: Connection, row: Row[Any], event: str, actor: Actor, outcome: str = "success", **detail: Any
    ) -> None:
        (delivery,) = self._outbox.get(tx, [row.delivery_id])
        told = {**_about(delivery), "transaction": row.transaction_uid, **detail}
        self._audit.record(tx, event, about=delivery.about, actor=actor, outcome=outcome, detail=told)


class Reports:
    """What peers have asked this node, and are still to be told."""

    def __init__(self, audit: Audit, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock

    def asked(self, tx: Connection, transaction: str, kept: int, not_kept: int, actor: Actor) -> None:
        """Records commitment.asked: a peer asked for so many instances."""
        detail = {"transaction": transaction, "committed": kept, "failed": not_kept}
        self._audit.record(tx, "commitment.asked", actor=actor, detail=detail)

    def queue(
        self, tx: Connection, ae_title: str, host: str, port: int, transaction: str, data: bytes
    ) -> None:
        """A report is due at once; a second one on the same transaction takes the place of the first."""
        now = self._clock.stamp()
        row = {
            "ae_title": ae_title, "host": host, "port": port, "transaction_uid": transaction, "data": data,
            "attempt": 0, "next_attempt_at": now, "created_at": now,
        }  # fmt: skip
        known = ["ae_title", "transaction_uid"]
        tx.execute(
            upsert(commitment_reports).values(row).on_conflict_do_update(index_elements=known, set_=row)
        )

    def count(self, tx: Connection, ae_title: str) -> int:
        """How many reports a peer is still owed."""
        owed = select(func.count()).select_from(commitment_reports)
        return tx.execute(owed.where(commitment_reports.c.ae_title == ae_title)).scalar_one()

    def next_due(self, tx: Connection) -> datetime | None:
        """When the next report is due."""
        found = tx.execute(select(func.min(commitment_reports.c.next_attempt_at))).scalar()
        return moment(found) if found else None

    def due(self, tx: Connection) -> Report | None:
        """The report that has waited longest of those that are due."""
        row = tx.execute(
            select(commitment_reports)
            .where(commitment_reports.c.next_attempt_at <= self._clock.stamp())
            .order_by(commitment_reports.c.next_attempt_at, commitment_reports.c.id)
            .limit(1)
        ).first()
        if row is None:
            return None
        return Report(
            id=row.id,
            ae_title=row.ae_title,
            host=row.host,
            port=row.port,
            transaction=row.transaction_uid,
            data=row.data,
            attempt=row.attempt,
            created_at=row.created_at,
        )

    def told(self, tx: Connection, report: Report) -> None:
        """The peer has it. Records commitment.reported."""
        self._drop(tx, report)
        self._tell(tx, report, "success")

    def given_up(self, tx: Connection, report: Report, reason: str) -> None:
        """It is not tried any more. Records commitment.reported, a failure."""
        self._drop(tx, report)
        self._tell(tx, report, "failure", reason=reason)

    def postponed(self, tx: Connection, report: Report, seconds: float) -> None:
        """It did not get through; again in `seconds`."""
        again = stamp(self._clock.now() + timedelta(seconds=seconds))
        tx.execute(
            update(commitment_reports)
            .where(commitment_reports.c.id == report.id)
            .values(attempt=commitment_reports.c.attempt + 1, next_attempt_at=again)
        )

    def _drop(self, tx: Connection, report: Report) -> None:
        """Unless the same was asked once more meanwhile, and waits to be answered."""
        same = (commitment_reports.c.id == report.id) & (commitment_reports.c.created_at == report.created_at)
        tx.execute(delete(commitment_reports).where(same))

    def _tell(self, tx: Connection, report: Report, outcome: str, **detail: Any) -> None:
        told = {
            "peer": report.ae_title, "transaction": report.transaction, "attempts": report.attempt + 1, **detail,
        }  # fmt: skip
        self._audit.record(tx, "commitment.reported", outcome=outcome, detail=told)


_DUE = {"state": "due", "transaction_uid": None, "until": None}


def _still(question: Question) -> Any:
    """Those of its rows that nobody has answered meanwhile."""
    return commitments.c.id.in_(question.ids) & (commitments.c.state == "asked")


def _select() -> Select[Any]:
    return (
        select(commitments, results.c.sop_class, results.c.sop_instance)
        .join_from(commitments, deliveries, deliveries.c.id == commitments.c.delivery_id)
        .join(results, results.c.id == deliveries.c.result_id)
    )


def _of(destination: str, condition: Any) -> Select[Any]:
    return _select().where(deliveries.c.destination == destination, condition)


def _about(delivery: Delivery) -> Mapping[str, Any]:
    return {
        "delivery": delivery.id,
        "destination": delivery.destination,
        "writer": delivery.writer,
        "result": delivery.sop_instance,
    }
