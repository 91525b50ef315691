"""④ outbox -> destination: the deliverer, one lane (thread) or more a destination.

    claim a batch (each attempt is recorded) ──► send one after the other ──► delivered | postponed | parked (recorded)

Nothing is sent whose attempt is not recorded. If the process dies between the destination's Success and the record,
the same SOP instances are sent again, which are no second results. A batch's outcomes are recorded together, at its
end, at the first that did not get through, or after half a second; what was not tried by then waits again, uncounted.

After trouble the lane pauses, not each delivery for itself: 1 s, doubling to 5 min, without end. Whoever failed
steps behind the others, so that one object on which a peer chokes holds up nobody. A person's `retry` ends a pause.
Lanes of one destination share its trouble, and only the first of them tries whether it is over.
A delivery to a destination that is no longer configured has no lane and waits.
"""

import os
import select
import threading
import time
from collections.abc import Sequence
from contextvars import copy_context
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection

from node import child
from node.deliver.commitment import Committing, Reporting
from node.deliver.dimse import DimseSender
from node.deliver.folder import FolderSender
from node.deliver.mllp import Hl7Sender
from node.deliver.outcome import Delivered, Outcome, Parked, Postponed
from node.deliver.post import HttpSender
from node.deliver.trouble import Trouble
from node.deliver.turns import DATABASE_SECONDS, Turns
from node.deliver.web import WebSender
from node.settings import (
    Destination,
    DimseDestination,
    FolderDestination,
    Hl7Destination,
    HttpDestination,
    WebDestination,
)
from node.wakeup import Wakeup
from storage.errors import Unavailable, WrongState
from storage.outbox import Delivery
from storage.store import Store

# what a lost nudge costs
POLL_SECONDS = 3.0
# what one transaction claims, and one records, at most: 0.5 ms of CPU and 1.1 ms a delivery with 16, half with 64
BATCH = 64
# how long what was sent may go unrecorded, but for the last of it
BATCH_SECONDS = 0.5
# longer than a batch's time and all timeouts of its last send together; what is held longer has nobody who holds it
LEASE_SECONDS = 600.0
# how long a send in flight may go on after SIGTERM; a row left `sending` goes back to `waiting` at the next start
STOP_SECONDS = 5.0
# how far a failed delivery steps behind the end of its lane's pause
BEHIND_SECONDS = 1.0


class Sender(Protocol):
    """How a destination is reached."""

    def send(self, delivery: Delivery, file: Path) -> Outcome:
        """One try. Trouble of the destination is an outcome; what raises is a damaged file or a fault of ours."""

    def rest(self) -> None:
        """Nothing is due: give back what is held."""


class Tried(NamedTuple):
    """A delivery, what became of it, the seconds that it took, and in how many it is due again if it was postponed."""

    delivery: Delivery
    outcome: Outcome
    seconds: float
    again: float


class Lane(Turns):
    """Delivers what waits for one destination, one after the other, until `stopping`.

    `lanes`: how many the destination has; they share `trouble`, and the one that `leads` tries whether it is over.
    """

    def __init__(
        self,
        name: str,
        sender: Sender,
        store: Store,
        owner: str,
        stopping: threading.Event,
        trouble: Trouble | None = None,
        *,
        lanes: int = 1,
        leads: bool = True,
        committing: Committing | None = None,
    ) -> None:
        super().__init__(name, store, stopping)
        self._sender = sender
        self._owner = owner
        self._trouble = trouble or Trouble(store.clock)
        self._leads = leads
        # whom a destination's commitment is owed to; None: it is not asked to commit
        self._committing = committing
        # a share, so that what comes together goes out side by side
        self._largest = max(1, BATCH // lanes)
        self._most = 1

    def rest(self) -> None:
        self._sender.rest()

    def turn(self) -> float:
        """At most one batch; how many seconds to wait until the next turn. Raises Unavailable."""
        wait = self._until_due()
        if wait > 0:
            # the first one goes alone: if the destination is down, nothing else was claimed for nothing
            self._most = 1
            return wait
        with self._store.database.write() as tx:
            batch = self._store.outbox.claim_batch(tx, self.name, self._owner, LEASE_SECONDS, self._most)
        if batch:
            self._deliver(batch)
        return 0

    def _until_due(self) -> float:
        """Seconds until something may be claimed; 0 or less: now."""
        outbox, trouble = self._store.outbox, self._trouble
        with self._store.database.read() as tx:
            due = outbox.next_due(tx, self.name)
            asked = trouble.failures > 0 and outbox.retried_since(tx, self.name, trouble.failed_at)
        if due is None or (trouble.failures and not self._leads):
            return POLL_SECONDS
        if trouble.pause > 0 and not asked:
            return min(POLL_SECONDS, trouble.pause)
        return min(POLL_SECONDS, (due - self._store.clock.now()).total_seconds())

    def _deliver(self, batch: Sequence[Delivery]) -> None:
        monotonic = self._store.clock.monotonic
        began = monotonic()
        tried: list[Tried] = []
        for delivery in batch:
            tried.append(self._once(delivery))
            seconds = monotonic() - began
            if self._trouble.failures or seconds >= BATCH_SECONDS or self._stopping.is_set():
                break
        # as many the next time as go out in time at this pace
        pace = int(BATCH_SECONDS * len(tried) / max(seconds, 0.001))
        self._most = 1 if self._trouble.failures else max(1, min(self._largest, pace))
        self._end(tried, batch[len(tried) :])

    def _once(self, delivery: Delivery) -> Tried:
        began = self._store.clock.monotonic()
        outcome = self._try(delivery)
        seconds = self._store.clock.monotonic() - began
        return Tried(delivery, outcome, seconds, self._note(delivery, outcome, began))

    def _try(self, delivery: Delivery) -> Outcome:
        if delivery.file is None:
            return Parked("its file is no longer in the spool", reached=None)
        file = self._store.spool.path(delivery.file)
        try:
            file.open("rb").close()
        except FileNotFoundError:
            return Parked("its file is missing in the spool", reached=None)
        except OSError as e:
            return Parked(f"its file in the spool can't be read: {e.strerror}", reached=None)
        try:
            return self._sender.send(delivery, file)
        except Exception as e:
            # the text may quote the file: the kind of error alone is told
            self._sender.rest()
            return Parked(f"it can't be sent: {type(e).__name__}", reached=None)

    def _note(self, delivery: Delivery, outcome: Outcome, began: float) -> float:
        """What the outcome says about the destination; for a postponed one, in how many seconds it is due again."""
        if isinstance(outcome, Postponed):
            pause = self._trouble.failed(began)
            self._log.warning(
                "not delivered, will be tried again",
                delivery=delivery.id, attempt=delivery.attempt, reason=outcome.reason, seconds=round(pause, 1),
            )  # fmt: skip
            return max(pause, self._trouble.backoff.seconds(delivery.attempt)) + BEHIND_SECONDS
        if isinstance(outcome, Parked):
            self._log.error("not delivered, parked", delivery=delivery.id, reason=outcome.reason)
        if isinstance(outcome, Delivered) or outcome.reached:
            self._trouble.passed()
        return 0.0

    def _end(self, tried: Sequence[Tried], untried: Sequence[Delivery]) -> None:
        """Records it all, waiting for a database that does not take it: what was sent must not be forgotten."""
        while True:
            try:
                with self._store.database.write() as tx:
                    for delivered, some in groupby(tried, lambda one: isinstance(one.outcome, Delivered)):
                        if delivered:
                            self._record_delivered(tx, list(some))
                        else:
                            for one in some:
                                self._record(tx, one)
                    if untried:
                        self._store.outbox.returned(tx, untried)
                if self._committing:
                    self._committing.nudge()
                return
            except Unavailable as e:
                self._tell_database(e)
                if self._stopping.wait(DATABASE_SECONDS):
                    return

    def _record_delivered(self, tx: Connection, some: Sequence[Tried]) -> None:
        kept = self._store.outbox.delivered_batch(tx, [(one.delivery, _how(one)) for one in some])
        for delivery in (one.delivery for one in some):
            if delivery.id not in kept:
                self._tell_taken_back(delivery)
            elif self._committing:
                self._committing.owe(tx, delivery.id)

    def _record(self, tx: Connection, tried: Tried) -> None:
        outbox, delivery = self._store.outbox, tried.delivery
        try:
            match tried.outcome:
                case Postponed(reason):
                    outbox.postponed(tx, delivery, reason, tried.again)
                case Parked(reason, reached):
                    outbox.parked(tx, delivery, reason, reached=reached)
        except WrongState:
            # the others of the batch are none the worse
            self._tell_taken_back(delivery)

    def _tell_taken_back(self, delivery: Delivery) -> None:
        self._log.warning("the delivery was taken back while it was being sent", delivery=delivery.id)


def _how(tried: Tried) -> dict[str, Any]:
    """What the audit record of a delivered one tells."""
    status = tried.outcome.status if isinstance(tried.outcome, Delivered) else ""
    return {**({"status": status} if status else {}), "seconds": round(tried.seconds, 3)}


def lanes_of(
    destination: Destination, ae_title: str, store: Store, owner: str, stopping: threading.Event
) -> list[Lane | Committing]:
    """A lane an association, one where the destination knows none; and who asks it to commit, where it is to."""
    count, committing = 1, None
    if isinstance(destination, DimseDestination):
        count = destination.associations
        if destination.commitment:
            committing = Committing(destination, ae_title, store, stopping)
    trouble = Trouble(store.clock)
    lanes = [
        Lane(
            destination.name,
            sender(destination, ae_title),
            store,
            owner,
            stopping,
            trouble,
            lanes=count,
            leads=number == 0,
            committing=committing,
        )
        for number in range(count)
    ]
    return [*lanes, committing] if committing else [*lanes]


def sender(destination: Destination, ae_title: str) -> Sender:
    """How this destination is reached."""
    match destination:
        case DimseDestination():
            return DimseSender(destination, ae_title)
        case FolderDestination():
            return FolderSender(destination)
        case WebDestination():
            return WebSender(destination)
        case HttpDestination():
            return HttpSender(destination)
        case Hl7Destination():
            return Hl7Sender(destination)


def main() -> None:
    me = child.start()
    settings = me.settings
    store = Store.open(settings.node.data_dir, keeps_names=settings.audit.keeps_names)
    wakeup = Wakeup(settings.node.data_dir, "deliverer")
    ae_title = settings.node.ae_title
    lanes: list[Lane | Committing | Reporting] = [
        lane
        for destination in settings.destinations
        for lane in lanes_of(destination, ae_title, store, me.owner, me.stopping)
    ]
    peers = [d for d in settings.destinations if isinstance(d, DimseDestination)]
    lanes.append(Reporting(ae_title, store, me.stopping, peers))
    ended, end = os.pipe()
    # the context carries the process's name into each log line
    threads = [
        threading.Thread(target=copy_context().run, args=(_run, lane, end), name=lane.name, daemon=True)
        for lane in lanes
    ]
    for thread in threads:
        thread.start()
    me.ready()
    # a lane ends before the stop by a fault of ours only; a new process begins anew
    while not me.stopping.is_set() and all(thread.is_alive() for thread in threads):
        select.select([wakeup.fileno(), me.stop_fd, ended], [], [])
        wakeup.wait(0)
        for lane in lanes:
            lane.nudge()
    stopped = me.stopping.is_set()
    until = time.monotonic() + STOP_SECONDS
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    wakeup.close()
    # a send that outlasts this must not hold up the stop
    os._exit(0 if stopped else 1)


def _run(lane: Lane | Committing | Reporting, end: int) -> None:
    try:
        lane.run()
    finally:
        os.write(end, b"!")


if __name__ == "__main__":
    main()
