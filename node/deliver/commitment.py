"""Storage commitment from our side of the outbox (PS3.4 Annex J): asking destinations, and telling peers.

    delivered ──► Committing: N-ACTION ──► N-EVENT-REPORT, on the same association or at the receiver ──► committed
                      ▲                        │ failed, or nothing heard in time
                      └── sent once more ◄─────┘

    receiver (a peer asked us) ──► Reporting: N-EVENT-REPORT on a new association

Each has a thread of its own: while a report may still come on the association, results go on being delivered.
An association is held for HOLD_SECONDS at most, and not at all with a destination that was seen to report on another:
an idle one blocks a thread of Orthanc's.
"""

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection

from node import certificates
from node.deliver.trouble import Backoff
from node.deliver.turns import Turns
from node.settings import DimseDestination
from node.wire import command, commitment, pdu, tls
from node.wire.commitment import BadArgument
from node.wire.connection import Ended, NoAssociation
from node.wire.contexts import IMPLICIT_LITTLE
from node.wire.requestor import Requestor, associate
from storage.audit import Actor
from storage.clock import moment
from storage.commitments import Question, Report
from storage.errors import WrongState
from storage.store import Store

# how soon what is overdue, or a lost nudge, is noticed
POLL_SECONDS = 15.0
HOLD_SECONDS = 1.0
# what is delivered so shortly after is asked for with the same message
GATHER_SECONDS = 0.5
# after trouble on the way as a lane's; after refusals so that MOST_REFUSALS of them make a day
TROUBLE = Backoff()
REFUSED = Backoff(60.0, 1800.0)
REPORT = Backoff(1.0, 900.0)
# a report that a peer does not take for so long is given up
REPORT_DAYS = 1

# PS3.8 9.3.3.2
_REFUSALS = {
    pdu.USER_REJECTION: "user rejection",
    pdu.CLASS_REFUSED: "SOP class not supported",
    pdu.SYNTAXES_REFUSED: "transfer syntax not supported",
}


@dataclass(frozen=True)
class Taken:
    """The peer has taken what it was sent."""


@dataclass(frozen=True)
class Unreached:
    """It did not get through."""

    reason: str


@dataclass(frozen=True)
class Refused:
    """It got through, and the peer does not want it."""

    reason: str


Outcome = Taken | Unreached | Refused


class Committing(Turns):
    """Asks one destination to commit to what it was delivered."""

    gather_seconds = GATHER_SECONDS
    waits_for_database = "storage commitment waits for the database"

    def __init__(
        self, destination: DimseDestination, ae_title: str, store: Store, stopping: threading.Event
    ) -> None:
        super().__init__(destination.name, store, stopping)
        self._destination = destination
        self._ae_title = ae_title
        # in a row
        self._failures = 0
        self._paused_until = 0.0
        # does the destination report on other associations? And the transaction by which that will show
        self._reports_elsewhere = False
        self._unheard = ""

    def owe(self, tx: Connection, delivery_id: int) -> None:
        """To be called in the transaction that records a delivery."""
        self._store.commitments.owe(tx, delivery_id)

    def turn(self) -> float:
        commitments, name = self._store.commitments, self._destination.name
        with self._store.database.read() as tx:
            is_due, is_overdue = commitments.is_due(tx, name), commitments.is_overdue(tx, name)
        if is_overdue:
            with self._store.database.write() as tx:
                late = commitments.overdue(tx, name, self._destination.commitment_seconds)
            self._log.warning("nothing was heard of a commitment in time", results=late)
            return 0
        pause = self._paused_until - self._store.clock.monotonic()
        if not is_due or pause > 0:
            return min(POLL_SECONDS, pause) if is_due else POLL_SECONDS
        with self._store.database.write() as tx:
            transaction = commitment.new_transaction()
            question = commitments.ask(tx, name, transaction, self._destination.commitment_seconds)
        if question is not None:
            self._end(question, self._ask(question))
        return 0

    def _ask(self, question: Question) -> Outcome:
        """N-ACTION; and the report, where it comes on the same association."""
        there = self._destination
        try:
            with _associate(
                there.host, there.port, there.ae_title, self._ae_title, files=certificates.of(there)
            ) as association:
                context, syntax = _context(association)
                if context is None:
                    return Refused(_refusal(association))
                said = commitment.Said(
                    question.transaction, [commitment.Reference(*i) for i in question.instances]
                )
                try:
                    answer = association.ask(context, commitment.action(), commitment.encode(said, syntax))
                except Ended as e:
                    # what Orthanc does with everybody who is not in its DicomModalities
                    return Refused(f"{e} instead of an answer: is this node among those that it knows?")
                status = command.number(answer.values, command.STATUS)
                if status != command.SUCCESS:
                    return Refused(f"the destination answered {commitment.meaning(status)}")
                self._listen(association, syntax, question)
        except (NoAssociation, command.BadCommand) as e:
            return Unreached(str(e))
        return Taken()

    def _listen(self, association: Requestor, syntax: str, question: Question) -> None:
        """A moment for the report, unless the destination is known to send it otherwise."""
        if self._unheard and self._is_answered(self._unheard):
            self._reports_elsewhere = True
        self._unheard = ""
        if self._reports_elsewhere:
            return
        until = time.monotonic() + HOLD_SECONDS
        try:
            while not self._is_answered(question.transaction):
                left = until - time.monotonic()
                message = association.hear(left) if left > 0 else None
                if message is None:
                    self._unheard = question.transaction
                    return
                status = self._report(message.values, message.data, syntax)
                association.send_message(message.context, commitment.response(message.values, status))
        except NoAssociation:
            # the request was taken: the report may come on an association of its own
            self._unheard = question.transaction

    def _is_answered(self, transaction: str) -> bool:
        with self._store.database.read() as tx:
            return self._store.commitments.is_answered(tx, transaction)

    def _report(self, values: Mapping[int, bytes], data: bytes, syntax: str) -> int:
        """Puts down what the destination reports; the status of the response."""
        if command.number(values, command.COMMAND_FIELD) != command.N_EVENT_REPORT_RQ:
            return command.UNRECOGNIZED_OPERATION
        there = Actor(self._destination.ae_title, self._destination.host)
        try:
            said = commitment.report_of(values, data, syntax)
            with self._store.database.write() as tx:
                self._store.commitments.reported(tx, said.transaction, said.committed, said.failures, there)
        except BadArgument as e:
            return e.status
        except WrongState:
            return commitment.INVALID_ARGUMENT
        return command.SUCCESS

    def _end(self, question: Question, outcome: Outcome) -> None:
        """Records the outcome. If the database does not take it, the time-out finds the question as asked."""
        commitments = self._store.commitments
        with self._store.database.write() as tx:
            match outcome:
                case Taken():
                    commitments.taken(tx, question)
                case Unreached(reason):
                    commitments.postponed(tx, question, reason)
                case Refused(reason):
                    commitments.refused(tx, question, reason)
        if isinstance(outcome, Taken):
            self._failures = 0
            return
        self._failures += 1
        pause = (TROUBLE if isinstance(outcome, Unreached) else REFUSED).seconds(self._failures)
        self._paused_until = self._store.clock.monotonic() + pause
        self._log.warning(
            "not asked to commit, will be tried again",
            results=len(question.ids), reason=outcome.reason, seconds=round(pause, 1),
        )  # fmt: skip


class Reporting(Turns):
    """Tells peers what they asked us to commit to, on associations of our own; destinations as results go to them."""

    waits_for_database = "reports of storage commitment wait for the database"

    def __init__(
        self,
        ae_title: str,
        store: Store,
        stopping: threading.Event,
        destinations: Iterable[DimseDestination] = (),
    ) -> None:
        super().__init__("reports", store, stopping)
        self._ae_title = ae_title
        self._files = {(d.host, d.port): certificates.of(d) for d in destinations}

    def turn(self) -> float:
        owed = self._store.commitment_reports
        with self._store.database.read() as tx:
            next_due, report = owed.next_due(tx), owed.due(tx)
        if report is None:
            early = next_due - self._store.clock.now() if next_due else timedelta(days=1)
            return min(POLL_SECONDS, max(0.1, early.total_seconds()))
        outcome = self._send(report)
        with self._store.database.write() as tx:
            if isinstance(outcome, Taken):
                owed.told(tx, report)
            elif self._store.clock.now() - moment(report.created_at) > timedelta(days=REPORT_DAYS):
                owed.given_up(tx, report, outcome.reason)
            else:
                owed.postponed(tx, report, REPORT.seconds(report.attempt + 1))
        if not isinstance(outcome, Taken) and not report.attempt:
            self._log.warning(
                "a report did not get through, will be tried again for a day",
                peer=report.ae_title, reason=outcome.reason,
            )  # fmt: skip
        return 0

    def _send(self, report: Report) -> Outcome:
        said = commitment.parse(report.data, IMPLICIT_LITTLE)
        roles = {commitment.PUSH_MODEL: pdu.Role(scu=False, scp=True)}
        try:
            files = self._files.get((report.host, report.port))
            with _associate(
                report.host, report.port, report.ae_title, self._ae_title, roles, files
            ) as association:
                context, syntax = _context(association)
                if context is None:
                    return Refused(_refusal(association))
                event = commitment.report(said.event_type)
                answer = association.ask(context, event, commitment.encode(said, syntax))
                status = command.number(answer.values, command.STATUS)
        except (NoAssociation, command.BadCommand) as e:
            return Unreached(str(e))
        if status != command.SUCCESS:
            return Refused(f"the peer answered {commitment.meaning(status)}")
        return Taken()


def refusal(destination: DimseDestination, ae_title: str) -> str:
    """Why the destination takes no requests for storage commitment; empty where it does. Sends none."""
    try:
        with _associate(
            destination.host,
            destination.port,
            destination.ae_title,
            ae_title,
            files=certificates.of(destination),
        ) as association:
            return "" if association.syntaxes(commitment.PUSH_MODEL) else _refusal(association)
    except NoAssociation as e:
        return str(e)


def _associate(
    host: str,
    port: int,
    called: str,
    calling: str,
    roles: Mapping[str, pdu.Role] | None = None,
    files: tls.Files | None = None,
) -> Requestor:
    proposals = [(commitment.PUSH_MODEL, commitment.SYNTAXES)]
    return associate(host, port, called, calling, proposals, roles=roles, files=files)


def _context(association: Requestor) -> tuple[int | None, str]:
    accepted = association.syntaxes(commitment.PUSH_MODEL)
    for syntax in commitment.SYNTAXES:
        if syntax in accepted:
            return accepted[syntax], syntax
    return None, ""


def _refusal(association: Requestor) -> str:
    why = _REFUSALS.get(association.refusal(commitment.PUSH_MODEL), "no reason given")
    return f"presentation context refused: Storage Commitment Push Model ({why})"
