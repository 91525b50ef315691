"""Fragments to messages (PS3.7 6.3, PS3.8 Annex E): a C-STORE's data set goes on as it comes, all else is collected.

Messages.fragment … .flush ──► Incoming (accept.py), and its answer back to the peer
                           └─► services.serve, and its messages back
"""

from collections.abc import Callable, Mapping

from node.receive import services
from node.receive.accept import Announced, Incoming, Receiver, Sender
from node.receive.negotiation import Context
from node.receive.stream import Violation
from node.wire import command, pdu
from node.wire.message import MAX_DATA_BYTES

Send = Callable[[bytes], None]


class Messages:
    """One association's messages, one after the other.

    `send` takes whole PDUs; `max_length`: of the PDUs that the peer takes.
    """

    def __init__(
        self,
        receiver: Receiver,
        sender: Sender,
        accepted: Mapping[int, Context],
        max_length: int,
        send: Send,
    ) -> None:
        self._receiver = receiver
        self._sender = sender
        self._accepted = accepted
        self._max_length = max_length
        self._send = send
        self._context = 0
        self._command = bytearray()
        self._values: dict[int, bytes] | None = None
        # its last fragment has come, but not yet the whole PDU that it came in
        self._whole = False
        # of a C-STORE, and its fragments that lie in the buffer still
        self._incoming: Incoming | None = None
        self._pieces: list[memoryview] = []
        # of anything else
        self._data = bytearray()

    @property
    def is_between(self) -> bool:
        """No message has begun."""
        return self._values is None and not self._command

    @property
    def is_receiving(self) -> bool:
        """An object is on its way."""
        return self._incoming is not None

    def fragment(self, context: int, control: int, payload: memoryview, ends: bool) -> None:
        """A piece of a fragment; see `stream.Consumer`. Raises Violation."""
        if context not in self._accepted:
            raise Violation("a fragment under a context that was not accepted", pdu.UNEXPECTED_PARAMETER)
        if self._whole:
            # another message behind it in the same PDU
            self._complete()
        if context != self._context:
            self._change_context(context)
        if control & pdu.COMMAND:
            self._take_command(payload, is_last=ends and bool(control & pdu.LAST))
            return
        if self._values is None:
            raise Violation("a data set without a command", pdu.UNEXPECTED_PARAMETER)
        if self._incoming is not None:
            if payload:
                self._pieces.append(payload)
        else:
            self._data += payload
            if len(self._data) > MAX_DATA_BYTES:
                raise Violation("a data set too long for its command", pdu.INVALID_PARAMETER)
        self._whole = ends and bool(control & pdu.LAST)

    def end_of_data(self) -> None:
        """A message counts once the PDU that brings its end is whole. Raises Violation."""
        if self._whole:
            self._complete()

    def flush(self) -> None:
        """The buffer is about to be used anew."""
        if self._pieces and self._incoming is not None:
            self._incoming.write(*self._pieces)
        self._pieces.clear()

    def _change_context(self, context: int) -> None:
        if not self.is_between:
            raise Violation("a message changes its context", pdu.UNEXPECTED_PARAMETER)
        self._context = context

    def _take_command(self, payload: memoryview, *, is_last: bool) -> None:
        if self._values is not None:
            raise Violation("a command inside a data set", pdu.UNEXPECTED_PARAMETER)
        self._command += payload
        if len(self._command) > command.MAX_BYTES:
            raise Violation("a command longer than 64 KiB", pdu.INVALID_PARAMETER)
        if is_last:
            try:
                self._begin()
            except command.BadCommand as e:
                raise Violation(str(e), pdu.INVALID_PARAMETER) from e

    def _begin(self) -> None:
        """The command is whole."""
        values = command.parse(self._command)
        self._command.clear()
        field = command.number(values, command.COMMAND_FIELD)
        has_data = command.number(values, command.DATA_SET_TYPE) != command.NO_DATA_SET
        self._values = values
        if field == command.C_STORE_RQ:
            command.number(values, command.MESSAGE_ID)
            context = self._accepted[self._context]
            announced = Announced(
                sop_class=values.get(command.AFFECTED_CLASS, b""),
                sop_instance=values.get(command.AFFECTED_INSTANCE, b""),
                context_class=context.abstract,
                transfer_syntax=context.syntax,
            )
            self._incoming = self._sender.begin(announced)
        self._whole = not has_data

    def _complete(self) -> None:
        """The message is whole: answer it."""
        values, incoming = self._values, self._incoming
        assert values is not None
        if incoming is not None:
            self.flush()
            answer = incoming.finish()
            self._answer(command.store_response(values, answer.status, answer.comment))
            self._incoming = None
        else:
            self._serve(values)
        self._values = None
        self._whole = False

    def _serve(self, values: Mapping[int, bytes]) -> None:
        context = self._accepted[self._context]
        message = services.Message(context.abstract, context.syntax, values, bytes(self._data))
        self._data.clear()
        try:
            for outgoing in services.serve(self._receiver, self._sender.actor, message):
                self._answer(outgoing.command, outgoing.data)
        except command.BadCommand as e:
            raise Violation(str(e), pdu.INVALID_PARAMETER) from e

    def _answer(self, encoded: bytes, data: bytes = b"") -> None:
        self._send(pdu.message(self._context, encoded, data, self._max_length))
