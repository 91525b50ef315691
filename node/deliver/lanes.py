"""④ outbox -> destination: the deliverer, one lane (thread) a destination.

    claim (the attempt is recorded) ──► send ──► delivered | postponed | parked (recorded)

Nothing is sent whose attempt is not recorded. If the process dies between the destination's Success and the record,
the same SOP instance is sent again, which is no second result.

After trouble the lane pauses, not each delivery for itself: 1 s, doubling to 5 min, without end. Whoever failed
steps behind the others, so that one object on which a peer chokes holds up nobody. A person's `retry` ends a pause.
A delivery to a destination that is no longer configured has no lane and waits.
"""

import os
import random
import select
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from node import child, log
from node.deliver.dimse import DimseSender
from node.deliver.folder import FolderSender
from node.deliver.mllp import Hl7Sender
from node.deliver.outcome import Delivered, Outcome, Parked, Postponed
from node.deliver.post import HttpSender
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
# how soon a database that did not take the work is asked again
DATABASE_SECONDS = 1.0
# longer than all timeouts of one send together; one that is held longer has nobody who holds it
LEASE_SECONDS = 600.0
# how long a send in flight may go on after SIGTERM; a row left `sending` goes back to `waiting` at the next start
STOP_SECONDS = 5.0
# how far a failed delivery steps behind the end of its lane's pause
BEHIND_SECONDS = 1.0
# how soon SIGTERM is noticed
_BEAT_SECONDS = 0.25

_NEVER = datetime.min.replace(year=1970, tzinfo=UTC)


class Sender(Protocol):
    """How a destination is reached."""

    def send(self, delivery: Delivery, file: Path) -> Outcome:
        """One try. Trouble of the destination is an outcome; what raises is a damaged file or a fault of ours."""

    def rest(self) -> None:
        """Nothing is due: give back what is held."""


@dataclass(frozen=True)
class Backoff:
    """Seconds after the nth failure in a row: doubling, and up to a quarter less, so that lanes don't march in step."""

    first: float = 1.0
    most: float = 300.0
    jitter: Callable[[], float] = random.random

    def seconds(self, failures: int) -> float:
        return min(self.most, self.first * 2.0 ** min(failures - 1, 32)) * (1 - self.jitter() / 4)


class Lane:
    """Delivers what waits for one destination, one after the other, until `stopping`."""

    def __init__(
        self,
        name: str,
        sender: Sender,
        store: Store,
        owner: str,
        stopping: threading.Event,
        backoff: Backoff = Backoff(),
    ) -> None:
        self.name = name
        self._sender = sender
        self._store = store
        self._owner = owner
        self._stopping = stopping
        self._backoff = backoff
        self._nudged = threading.Event()
        self._log = log.get().bind(destination=name)
        # in a row, of this destination
        self._failures = 0
        self._failed_at = _NEVER
        self._paused_until = 0.0
        self._database_told = False

    def nudge(self) -> None:
        """There may be work, or it is time to stop."""
        self._nudged.set()

    def run(self) -> None:
        while not self._stopping.is_set():
            self._nudged.clear()
            try:
                wait = self.turn()
                self._database_told = False
            except Unavailable as e:
                self._tell_database(e)
                wait = DATABASE_SECONDS
            if wait > 0 and not self._stopping.is_set():
                self._sender.rest()
                self._nudged.wait(wait)
        self._sender.rest()

    def turn(self) -> float:
        """At most one delivery; how many seconds to wait until the next turn. Raises Unavailable."""
        outbox, clock = self._store.outbox, self._store.clock
        with self._store.database.read() as tx:
            due = outbox.next_due(tx, self.name)
            asked = self._failures > 0 and outbox.retried_since(tx, self.name, self._failed_at)
        if due is None:
            return POLL_SECONDS
        pause = self._paused_until - clock.monotonic()
        if pause > 0 and not asked:
            return min(POLL_SECONDS, pause)
        early = (due - clock.now()).total_seconds()
        if early > 0:
            return min(POLL_SECONDS, early)
        with self._store.database.write() as tx:
            delivery = outbox.claim(tx, self.name, self._owner, LEASE_SECONDS)
        if delivery is None:
            return 0
        began = clock.monotonic()
        outcome = self._try(delivery)
        self._end(delivery, outcome, clock.monotonic() - began)
        return 0

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

    def _end(self, delivery: Delivery, outcome: Outcome, seconds: float) -> None:
        """Records the outcome, waiting for a database that does not take it: what was sent must not be forgotten."""
        again = self._note(delivery, outcome)
        while True:
            try:
                self._record(delivery, outcome, seconds, again)
                return
            except WrongState:
                self._log.warning("the delivery was taken back while it was being sent", delivery=delivery.id)
                return
            except Unavailable as e:
                self._tell_database(e)
                if self._stopping.wait(DATABASE_SECONDS):
                    return

    def _note(self, delivery: Delivery, outcome: Outcome) -> float:
        """What the outcome says about the destination; for a postponed one, in how many seconds it is due again."""
        if isinstance(outcome, Postponed):
            self._failures += 1
            self._failed_at = self._store.clock.now()
            pause = self._backoff.seconds(self._failures)
            self._paused_until = self._store.clock.monotonic() + pause
            self._log.warning(
                "not delivered, will be tried again",
                delivery=delivery.id, attempt=delivery.attempt, reason=outcome.reason, seconds=round(pause, 1),
            )  # fmt: skip
            return max(pause, self._backoff.seconds(delivery.attempt)) + BEHIND_SECONDS
        if isinstance(outcome, Parked):
            self._log.error("not delivered, parked", delivery=delivery.id, reason=outcome.reason)
        if isinstance(outcome, Delivered) or outcome.reached:
            self._failures = 0
            self._paused_until = 0.0
        return 0.0

    def _record(self, delivery: Delivery, outcome: Outcome, seconds: float, again: float) -> None:
        outbox = self._store.outbox
        with self._store.database.write() as tx:
            match outcome:
                case Delivered(status):
                    detail = {"status": status} if status else {}
                    outbox.delivered(tx, delivery, {**detail, "seconds": round(seconds, 3)})
                case Postponed(reason):
                    outbox.postponed(tx, delivery, reason, again)
                case Parked(reason, reached):
                    outbox.parked(tx, delivery, reason, reached=reached)

    def _tell_database(self, error: Unavailable) -> None:
        if not self._database_told:
            self._log.error("deliveries wait for the database", reason=str(error))
        self._database_told = True


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
    store = Store.open(settings.node.data_dir)
    wakeup = Wakeup(settings.node.data_dir, "deliverer")
    lanes = [
        Lane(d.name, sender(d, settings.node.ae_title), store, me.owner, me.stopping)
        for d in settings.destinations
    ]
    # the context carries the process's name into each log line
    threads = [
        threading.Thread(target=copy_context().run, args=(lane.run,), name=lane.name, daemon=True)
        for lane in lanes
    ]
    for thread in threads:
        thread.start()
    me.ready()
    # a lane ends before the stop by a fault of ours only; a new process begins anew
    while not me.stopping.is_set() and all(thread.is_alive() for thread in threads):
        if select.select([wakeup], [], [], _BEAT_SECONDS)[0]:
            wakeup.wait(0)
            for lane in lanes:
                lane.nudge()
    for lane in lanes:
        lane.nudge()
    stopped = me.stopping.is_set()
    until = time.monotonic() + STOP_SECONDS
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    wakeup.close()
    # a send that outlasts this must not hold up the stop, and pynetdicom's threads are no daemons
    os._exit(0 if stopped else 1)


if __name__ == "__main__":
    main()
