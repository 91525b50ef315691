"""Our own association as its requestor, in one thread (PS3.8 7 and 9, PS3.7).

    with associate(...) as association:
        association.syntaxes(sop_class)             transfer syntax -> presentation context
        association.store(...)                      one C-STORE, the data set's bytes straight from a file
        association.ask(...)                        any other request and its answer; small ones
        association.read_message()                  what the peer asks of us: an N-EVENT-REPORT-RQ

Whatever the peer does wrong ends the association and raises one of the few errors of `connection`; then there is
nothing left to close.
"""

import contextlib
import os
import struct
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn, Self

from node.wire import command, pdu, tls
from node.wire.connection import Connection, Ended, NoAssociation
from node.wire.contexts import IMPLEMENTATION_CLASS, IMPLEMENTATION_VERSION
from node.wire.frames import MAX_FRAGMENT, Frames
from node.wire.message import Fragments, Message

# PS3.8 9.3.4: result 1 lasts, 2 passes; what each source may give as its reason
_PERMANENT = 1
_REASONS = {
    (1, 2): "Application context name not supported",
    (1, 3): "Calling AE title not recognised",
    (1, 7): "Called AE title not recognised",
    (2, 2): "Protocol version not supported",
    (3, 1): "Temporary congestion",
    (3, 2): "Local limit exceeded",
}

# what we announce; we receive answers and event reports only
MAX_LENGTH = 131_072
# messages of the peer that wait to be read
MAX_KEPT = 16
_MAX_CONTEXTS = 128
_PRIORITY = 0x0700


class Rejected(NoAssociation):
    """A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    def __init__(self, result: int, source: int, reason: int) -> None:
        lasting = "permanent" if result == _PERMANENT else "transient"
        why = _REASONS.get((source, reason), "No reason given")
        super().__init__(f"association rejected ({lasting}): {why}")
        self.result, self.source, self.reason = result, source, reason


@dataclass(frozen=True)
class Timeouts:
    """Seconds. `response` counts from the first byte of a request to its answer, slow networks included."""

    connect: float = 10.0
    associate: float = 30.0
    response: float = 120.0


USUAL = Timeouts()


def associate(
    host: str,
    port: int,
    called: str,
    calling: str,
    proposals: Iterable[tuple[str, Sequence[str]]],
    timeouts: Timeouts = USUAL,
    roles: Mapping[str, pdu.Role] | None = None,
    files: tls.Files | None = None,
) -> "Requestor":
    """Connects and associates, by TLS where there are `files`. `proposals`: a presentation context each, SOP class and
    transfer syntaxes, at most 128.

    An association of which the peer accepts no context is returned too. Raises NoAssociation.
    """
    proposed = {2 * n + 1: (sop_class, tuple(s)) for n, (sop_class, s) in enumerate(proposals)}
    if len(proposed) > _MAX_CONTEXTS:
        raise ValueError(f"{len(proposed)} presentation contexts; {_MAX_CONTEXTS} is the most")
    request = pdu.request(
        called,
        calling,
        [
            pdu.Proposal(context, sop_class.encode(), tuple(syntax.encode() for syntax in syntaxes))
            for context, (sop_class, syntaxes) in proposed.items()
        ],
        max_length=MAX_LENGTH,
        implementation=(IMPLEMENTATION_CLASS, IMPLEMENTATION_VERSION),
        roles={uid.encode(): role for uid, role in (roles or {}).items()},
    )
    connection = Connection(host, port, timeouts.connect, files)
    answer = _negotiate(connection, request, time.monotonic() + timeouts.associate)
    return Requestor(connection, proposed, answer, timeouts)


class Requestor:
    """An established association. Made by `associate`; for one thread."""

    def __init__(
        self,
        connection: Connection,
        proposed: Mapping[int, tuple[str, Sequence[str]]],
        answer: pdu.Accept,
        timeouts: Timeouts,
    ) -> None:
        self._connection = connection
        self._timeouts = timeouts
        self._proposed = proposed
        # an answer with a transfer syntax that was not proposed accepts nothing
        self._accepted = {
            context: syntax
            for context, syntax in ((c, _text(s)) for c, s in answer.syntaxes.items())
            if context in proposed and syntax in proposed[context][1]
        }
        self._refused = answer.refused
        self.roles = {_text(uid): role for uid, role in answer.roles.items()}
        """The roles that the peer lets us have, of those that were proposed (PS3.7 D.3.3.4)."""
        most = min(answer.max_length or MAX_FRAGMENT + 6, MAX_FRAGMENT + 6)
        # of even length; and no limit is so small that nothing goes through
        self._fragment = max(2, (most - 6) & ~1)
        self._frames: Frames | None = None
        self._fragments = Fragments()
        self._messages: deque[Message] = deque()
        self._last_id = 0
        # the ids of our requests that are not answered
        self._asked: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Releases; aborts where something was raised."""
        if kind is None:
            self.release()
        else:
            self.abort()

    def syntaxes(self, sop_class: str) -> dict[str, int]:
        """Transfer syntax -> presentation context that the peer accepted for the class."""
        return {
            syntax: context
            for context, syntax in self._accepted.items()
            if self._proposed[context][0] == sop_class
        }

    def refusal(self, sop_class: str) -> int:
        """The result (PS3.8 9.3.3.2) of the first context of the class that was not accepted."""
        for context, (proposed, _) in self._proposed.items():
            if proposed == sop_class and context not in self._accepted:
                return self._refused.get(context, pdu.NO_REASON_GIVEN)
        return pdu.NO_REASON_GIVEN

    def is_open(self) -> bool:
        """Whether the association still stands; hears what the peer said since the last message."""
        try:
            while self._connection.has_arrived():
                self._hear(self._deadline())
        except NoAssociation:
            return False
        return not self._connection.closed

    def store(self, context: int, sop_class: str, sop_instance: str, fd: int, offset: int) -> int:
        """C-STORE (PS3.7 9.1.1) of a file from `offset` to its end, as its bytes are; the answer's status.

        Raises NoAssociation, and what reading the file raises: then the association is aborted.
        """
        deadline = self._deadline()
        number, request = self._request(
            {
                command.AFFECTED_CLASS: _uid(sop_class),
                command.COMMAND_FIELD: struct.pack("<H", command.C_STORE_RQ),
                _PRIORITY: struct.pack("<H", 0),
                command.AFFECTED_INSTANCE: _uid(sop_instance),
            },
            has_data=True,
        )
        try:
            self._stream(context, request, fd, offset, deadline)
        except (OSError, EOFError):
            self.abort()
            raise
        return self._status(self._answer(number, deadline))

    def echo(self, context: int) -> int:
        """C-ECHO (PS3.7 9.1.5); the answer's status. Raises NoAssociation."""
        sop_class, _ = self._proposed[context]
        field = struct.pack("<H", command.C_ECHO_RQ)
        return self._status(
            self.ask(context, {command.AFFECTED_CLASS: _uid(sop_class), command.COMMAND_FIELD: field})
        )

    def ask(self, context: int, elements: Mapping[int, bytes], data: bytes = b"") -> Message:
        """Any request, and the message that answers it. `elements`: the command set; its message id and data set
        type are put in here. Raises NoAssociation."""
        deadline = self._deadline()
        number, request = self._request(elements, has_data=bool(data))
        self.send_message(context, request, data)
        return self._answer(number, deadline)

    def send_message(self, context: int, encoded: bytes, data: bytes = b"") -> None:
        """One message, an answer to the peer's: an encoded command set, an encoded data set. Raises NoAssociation."""
        self._connection.send(pdu.message(context, encoded, data, self._fragment + 6), self._deadline())

    def read_message(self, seconds: float | None = None) -> Message:
        """The next message of the peer that is no answer to ours: a request of its own.

        Raises NoAssociation; NoAnswer after `seconds` (else `Timeouts.response`): then too the association is over.
        """
        deadline = self._deadline() if seconds is None else time.monotonic() + seconds
        while not (requests := [m for m in self._messages if m.answers is None]):
            self._hear(deadline)
        self._messages.remove(requests[0])
        return requests[0]

    def hear(self, seconds: float) -> Message | None:
        """The next request of the peer, if one begins to come within `seconds`; else the association stands on.

        Raises NoAssociation.
        """
        until = time.monotonic() + seconds
        while all(message.answers is not None for message in self._messages):
            if not self._connection.has_arrived(until - time.monotonic()):
                return None
            self._hear(self._deadline())
        return self.read_message()

    def release(self) -> None:
        """A-RELEASE (PS3.8 7.2); a peer that does not answer it in `Timeouts.associate` is aborted. Never raises."""
        deadline = time.monotonic() + self._timeouts.associate
        with contextlib.suppress(NoAssociation):
            self._connection.send(pdu.release_request(), deadline)
            while True:
                kind, _ = self._connection.read(deadline)
                if kind == pdu.A_RELEASE_RP:
                    self._connection.close()
                    break
                if kind == pdu.A_RELEASE_RQ:
                    # release collision: the requestor answers at once and waits on (7.2.2.7)
                    self._connection.send(pdu.release_reply(), deadline)
                elif kind != pdu.P_DATA_TF:
                    _unexpected(self._connection, kind)

    def abort(self) -> None:
        """A-ABORT (PS3.8 7.3). Never raises."""
        self._connection.end_with(pdu.abort(pdu.BY_USER))

    def _deadline(self) -> float:
        return time.monotonic() + self._timeouts.response

    def _request(self, elements: Mapping[int, bytes], *, has_data: bool) -> tuple[int, bytes]:
        """A new message id, and the command set with it."""
        number = self._last_id = self._last_id % 0xFFFF + 1
        self._asked.add(number)
        kind = 0 if has_data else command.NO_DATA_SET
        own = {
            command.MESSAGE_ID: struct.pack("<H", number),
            command.DATA_SET_TYPE: struct.pack("<H", kind),
        }
        return number, command.encode({**elements, **own})

    def _stream(self, context: int, request: bytes, fd: int, offset: int, deadline: float) -> None:
        """The request and the rest of the file, several PDUs a call."""
        frames = self._frames = self._frames or Frames(self._fragment)
        left = os.fstat(fd).st_size - offset
        head = pdu.message(context, request, max_length=self._fragment + 6)
        while True:
            read = frames.read(fd, offset, left)
            left -= read
            offset += read
            self._connection.send(frames.framed(context, head, read, last=not left), deadline)
            if not left:
                return
            head = b""

    def _answer(self, number: int, deadline: float) -> Message:
        """The message that answers our request; requests of the peer are kept for `read_message`."""
        while not (answers := [m for m in self._messages if m.answers == number]):
            self._hear(deadline)
        self._messages.remove(answers[0])
        return answers[0]

    def _status(self, answer: Message) -> int:
        try:
            return command.number(answer.values, command.STATUS)
        except command.BadCommand as e:
            raise self._connection.broken("an answer without a status", pdu.INVALID_PARAMETER) from e

    def _hear(self, deadline: float) -> None:
        """One PDU on the established association; whole messages are kept. Raises NoAssociation."""
        kind, body = self._connection.read(deadline)
        if kind == pdu.P_DATA_TF:
            try:
                for message in self._fragments.take(body, self._accepted):
                    self._keep(message)
            except (pdu.BadPDU, command.BadCommand) as e:
                raise self._connection.broken(str(e), pdu.INVALID_PARAMETER) from e
        elif kind == pdu.A_RELEASE_RQ:
            # between two messages or in place of an answer: either way it is over
            self._connection.end_with(pdu.release_reply())
            raise Ended("released by the peer")
        else:
            _unexpected(self._connection, kind)

    def _keep(self, message: Message) -> None:
        answered = message.answers
        if answered is not None and answered not in self._asked:
            raise self._connection.broken("an answer to nothing that was asked", pdu.UNEXPECTED_PARAMETER)
        if len(self._messages) >= MAX_KEPT:
            raise self._connection.broken("more messages than are read", pdu.NO_REASON)
        self._asked.discard(answered or 0)
        self._messages.append(message)


def _negotiate(connection: Connection, request: bytes, deadline: float) -> pdu.Accept:
    """The request out, its answer in. Raises NoAssociation."""
    connection.send(request, deadline)
    kind, body = connection.read(deadline)
    try:
        if kind == pdu.A_ASSOCIATE_AC:
            return pdu.parse_accept(body)
        if kind == pdu.A_ASSOCIATE_RJ:
            rejected = Rejected(*pdu.parse_reject(body))
            connection.close()
            raise rejected
    except pdu.BadPDU as e:
        raise connection.broken(str(e), pdu.INVALID_PARAMETER) from e
    return _unexpected(connection, kind)


def _unexpected(connection: Connection, kind: int) -> NoReturn:
    """The peer's abort, or a PDU that the state does not foresee (PS3.8 9.2, AA-3, AA-8). Raises Ended."""
    if kind == pdu.A_ABORT:
        connection.close()
        raise Ended("aborted by the peer")
    raise connection.broken("a PDU that does not belong here", pdu.UNEXPECTED_PDU)


def _text(uid: bytes) -> str:
    return uid.decode("ascii", "replace")


def _uid(value: str) -> bytes:
    encoded = value.encode("ascii")
    return encoded + b"\0" if len(encoded) % 2 else encoded
