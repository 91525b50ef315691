"""Small messages of a peer, put together from the fragments in which they arrive (PS3.7 6.3.1, PS3.8 annex E)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from node.wire import command, pdu

# a commitment request or report on some 20,000 instances
MAX_DATA_BYTES = 4 << 20


class Message(NamedTuple):
    """A whole message: its presentation context, its command set, its data set's bytes."""

    context: int
    values: Mapping[int, bytes]
    data: bytes

    @property
    def answers(self) -> int | None:
        """The id of the request that it answers; None for a request. Raises BadCommand."""
        if not command.number(self.values, command.COMMAND_FIELD) & command.RESPONSE:
            return None
        return command.number(self.values, command.RESPONDS_TO)


@dataclass
class _Part:
    context: int
    command: bytearray = field(default_factory=bytearray)
    data: bytearray = field(default_factory=bytearray)
    # the command set, once it is whole
    values: Mapping[int, bytes] | None = None


class Fragments:
    """What a peer sends, until it is a message. Held in memory, up to 64 KiB and MAX_DATA_BYTES."""

    def __init__(self) -> None:
        self._part: _Part | None = None

    def take(self, body: bytes, contexts: Mapping[int, str]) -> list[Message]:
        """The messages that a P-DATA-TF completes. Raises BadPDU, BadCommand."""
        if not body:
            raise pdu.BadPDU("a P-DATA-TF without a fragment")
        messages = []
        at = 0
        while at < len(body):
            if len(body) - at < pdu.PDV_HEADER.size:
                raise pdu.BadPDU("a fragment that breaks off")
            length, context, control = pdu.PDV_HEADER.unpack_from(body, at)
            end = at + 4 + length
            if length < 2 or end > len(body):
                raise pdu.BadPDU("a fragment that lies about its length")
            if context not in contexts:
                raise pdu.BadPDU("a fragment under a context that was not accepted")
            message = self._add(context, control, body[at + pdu.PDV_HEADER.size : end])
            if message:
                messages.append(message)
                self._part = None
            at = end
        return messages

    def _add(self, context: int, control: int, fragment: bytes) -> Message | None:
        part = self._part = self._part or _Part(context)
        if part.context != context or bool(control & pdu.COMMAND) != (part.values is None):
            raise pdu.BadPDU("fragments of two messages, or command and data set out of order")
        grown = part.command if part.values is None else part.data
        grown += fragment
        if len(part.command) > command.MAX_BYTES or len(part.data) > MAX_DATA_BYTES:
            raise pdu.BadPDU("a message that is too long")
        if not control & pdu.LAST:
            return None
        if part.values is None:
            part.values = command.parse(part.command)
            if command.number(part.values, command.DATA_SET_TYPE) != command.NO_DATA_SET:
                return None
        return Message(context, part.values, bytes(part.data))
