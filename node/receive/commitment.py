"""Storage commitment at our port (PS3.4 Annex J), both ways. Knows no socket and no engine.

N-ACTION-RQ: a peer asks whether we keep what it sent; a look into the books and at the files answers it. The report
goes out on a new association by the deliverer where we know at which port the peer listens (`receive.peers`, or a
DIMSE destination of the same AE title); else right behind the response, on the association that it came by.

N-EVENT-REPORT-RQ: a destination tells what became of results of ours that we asked it to commit to.
"""

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from node import log
from node.receive.accept import Receiver
from node.settings import DimseDestination, Settings
from node.wakeup import notify
from node.wire import command, commitment
from node.wire.commitment import BadArgument, Failure, Reference, Said
from node.wire.contexts import IMPLICIT_LITTLE
from storage.audit import Actor
from storage.errors import StorageError, WrongState

if TYPE_CHECKING:
    from node.receive.services import Message

# a peer whose reports don't get through is told no more than this
MAX_OWED = 100

# a request may name 100,000 instances: of such there is one in memory, however many associations bring one
_one_at_a_time = threading.Lock()

Reply = tuple[bytes, bytes]
"""A command set and a data set, encoded."""
Address = tuple[str, int]
"""Host (empty: where the peer calls from) and port."""


def addresses(settings: Settings) -> dict[str, Address]:
    """Where peers listen for reports, by AE title."""
    found = {d.ae_title: (d.host, d.port) for d in settings.destinations if isinstance(d, DimseDestination)}
    for peer in settings.receive.peers:
        if peer.port is not None:
            # a network is no place to call at
            found[peer.ae_title] = ("" if "/" in peer.host else peer.host, peer.port)
    return found


def serve(receiver: Receiver, actor: Actor, message: "Message") -> list[Reply]:
    """The messages that answer a request under the Storage Commitment Push Model. Raises BadCommand.

    Whatever is wrong with the request is a status (PS3.7 10.1.1.1.8, 10.1.4.1.10).
    """
    # without it nothing can be answered
    command.number(message.values, command.MESSAGE_ID)
    steps = {command.N_ACTION_RQ: _asked, command.N_EVENT_REPORT_RQ: _reported}
    step = steps.get(command.number(message.values, command.COMMAND_FIELD))
    if step is None:
        return [(commitment.response(message.values, command.UNRECOGNIZED_OPERATION), b"")]
    try:
        with _one_at_a_time:
            return step(receiver, actor, message)
    except BadArgument as e:
        status, reason = e.status, str(e)
    except StorageError as e:
        status, reason = commitment.PROCESSING_FAILURE, str(e)
    log.get().warning(
        "storage commitment: a message refused", peer=actor.name, status=f"{status:04X}", reason=reason
    )
    return [(commitment.response(message.values, status), b"")]


def _asked(receiver: Receiver, actor: Actor, message: "Message") -> list[Reply]:
    """The response; and the report, where it has to go the same way. Raises BadArgument, StorageError."""
    asked = commitment.action_of(message.values, message.data, message.transfer_syntax)
    report = judged(receiver, asked.transaction, asked.referenced)
    known = receiver.reports_to.get(actor.name)
    store = receiver.store
    with store.database.write() as tx:
        owed = store.commitment_reports
        if known is not None:
            if owed.count(tx, actor.name) >= MAX_OWED:
                raise BadArgument("too many reports wait for this peer", commitment.RESOURCE_LIMITATION)
            host, port = known
            data = commitment.encode(report, IMPLICIT_LITTLE)
            owed.queue(tx, actor.name, host or actor.host, port, report.transaction, data)
        owed.asked(tx, report.transaction, len(report.referenced), len(report.failed), actor)
    response = (commitment.response(message.values, command.SUCCESS), b"")
    if known is not None:
        notify(store.spool.root, "deliverer")
        return [response]
    request = {
        **commitment.report(report.event_type),
        command.MESSAGE_ID: message.values[command.MESSAGE_ID],
        command.DATA_SET_TYPE: b"\0\0",
    }
    return [response, (command.encode(request), commitment.encode(report, message.transfer_syntax))]


def judged(receiver: Receiver, transaction: str, asked: Iterable[Reference]) -> Said:
    """What of it is here, in the books and in the spool, and what is not, and why. Raises Unavailable."""
    wanted = list(dict.fromkeys(asked))
    with receiver.store.database.read() as tx:
        held = receiver.store.objects.held(tx, [reference.sop_instance for reference in wanted])
    kept: list[Reference] = []
    failed: list[Failure] = []
    for reference in wanted:
        reason = _missing(receiver, reference, held.get(reference.sop_instance, []))
        if reason is None:
            kept.append(reference)
        else:
            failed.append(Failure(*reference, reason))
    return Said(transaction, kept, failed)


def _missing(receiver: Receiver, reference: Reference, held: list[tuple[str, str | None]]) -> int | None:
    """Why one instance is not committed to; None: it is. `held`: class and file of each revision of it."""
    of_class = [file for sop_class, file in held if sop_class == reference.sop_class]
    files = [file for file in of_class if file is not None]
    if held and not of_class:
        return commitment.CLASS_CONFLICT
    if not files:
        return commitment.NO_SUCH_INSTANCE
    if not any(receiver.store.spool.path(file).exists() for file in files):
        return commitment.PROCESSING_FAILURE
    return None


def _reported(receiver: Receiver, actor: Actor, message: "Message") -> list[Reply]:
    """The response to a destination's report. Raises BadArgument, StorageError."""
    said = commitment.report_of(message.values, message.data, message.transfer_syntax)
    store = receiver.store
    try:
        with store.database.write() as tx:
            store.commitments.reported(tx, said.transaction, said.committed, said.failures, actor)
    except WrongState as e:
        raise BadArgument(str(e)) from e
    log.get().info(
        "storage commitment reported",
        peer=actor.name,
        committed=len(said.referenced),
        failed=len(said.failed),
    )
    return [(commitment.response(message.values, command.SUCCESS), b"")]
