"""What a peer may ask of the node beside C-STORE: a message in, the messages that answer it out.

Knows no socket and no engine. Such messages are small: they are held in memory, up to a bound (`wire.message`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from node.receive import commitment
from node.receive.accept import Receiver
from node.wire import command, contexts
from storage.audit import Actor


@dataclass(frozen=True)
class Message:
    """A whole message that is no C-STORE-RQ: its command set, parsed and as it came, and its data set, if any."""

    context_class: str
    transfer_syntax: str
    values: Mapping[int, bytes]
    data: bytes = b""


@dataclass(frozen=True)
class Outgoing:
    """One message back, under the same presentation context: an encoded command set, and an encoded data set."""

    command: bytes
    data: bytes = b""


def serve(receiver: Receiver, actor: Actor, message: Message) -> list[Outgoing]:
    """The messages that go back, in order; none where it was itself a response. Raises BadCommand.

    `actor` is who asks. Commits before it returns what must last.
    """
    field = command.number(message.values, command.COMMAND_FIELD)
    if field & command.RESPONSE or field == command.C_CANCEL_RQ:
        return []
    if field == command.C_ECHO_RQ and message.context_class == contexts.VERIFICATION:
        return [Outgoing(command.response(message.values, command.SUCCESS))]
    if message.context_class == contexts.STORAGE_COMMITMENT:
        return [Outgoing(*reply) for reply in commitment.serve(receiver, actor, message)]
    return [Outgoing(command.response(message.values, command.UNRECOGNIZED_OPERATION))]
