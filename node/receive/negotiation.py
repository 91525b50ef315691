"""What the node answers to proposed presentation contexts, looked up in tables made once (PS3.8 9.3.3, Annex D).

Of the transfer syntaxes of a context the one that the node likes best is accepted (`wire.contexts`). Role selection is
answered for storage commitment alone: its reports come from a peer that opens the association as the provider of that
service.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

from node.receive.admission import Rejection
from node.settings import Settings
from node.wire import contexts, pdu

# 128 contexts with two transfer syntaxes each take 13 kB
MOST_REMEMBERED, MOST_ITEM_BYTES = 64, 2**15
Known = TypeVar("Known")

UNCOMPRESSED = (contexts.IMPLICIT_LITTLE, contexts.EXPLICIT_LITTLE)

NO_SUCH_VERSION = Rejection(1, 2, 2, "another protocol version")
NO_SUCH_APPLICATION = Rejection(1, 1, 2, "another application context")


@dataclass(frozen=True)
class Context:
    """An accepted presentation context."""

    abstract: str
    syntax: str


class Table:
    """The negotiation of one node; read by many threads."""

    def __init__(self, settings: Settings) -> None:
        receive = settings.receive
        storage = contexts.storage_classes(receive.other_storage, receive.extra_classes)
        syntaxes = tuple(contexts.TRANSFER_SYNTAXES)
        self._accepted: dict[bytes, dict[bytes, Context]] = {
            abstract.encode(): {syntax.encode(): Context(abstract, syntax) for syntax in syntaxes}
            for abstract in storage
        }
        for service in (contexts.VERIFICATION, contexts.STORAGE_COMMITMENT):
            self._accepted[service.encode()] = {
                syntax.encode(): Context(service, syntax) for syntax in UNCOMPRESSED
            }
        # a modality proposes the same each time: by the items of its request, what they say, and our answer
        self._requests: dict[bytes, pdu.Request] = {}
        self._answers: dict[bytes, tuple[dict[int, Context], int, bytes]] = {}
        self._max_length = receive.max_pdu_bytes
        self._implementation = (contexts.IMPLEMENTATION_CLASS, contexts.IMPLEMENTATION_VERSION)

    def read(self, body: bytes) -> pdu.Request:
        """An A-ASSOCIATE-RQ, without its header. Raises BadPDU."""
        version, called, calling, reserved, items = pdu.fixed_part(body)
        known = self._requests.get(items)
        if known is None:
            return _remember(self._requests, items, pdu.parse_request(body))
        return replace(known, version=version, called=called, calling=calling, reserved=reserved)

    def rejection(self, request: pdu.Request) -> Rejection | None:
        """Why such a request is rejected whoever sends it."""
        if not request.version & 1:
            return NO_SUCH_VERSION
        if request.application_context != pdu.APPLICATION_CONTEXT:
            return NO_SUCH_APPLICATION
        return None

    def answer(self, request: pdu.Request) -> tuple[dict[int, Context], int, bytes]:
        """The accepted contexts by their ids, how many were refused, and the A-ASSOCIATE-AC."""
        known = self._answers.get(request.items)
        accepted, refused, items = known or _remember(self._answers, request.items, self._answer(request))
        return accepted, refused, pdu.accept(request, items)

    def _answer(self, request: pdu.Request) -> tuple[dict[int, Context], int, bytes]:
        accepted: dict[int, Context] = {}
        answers = []
        # ids are unique (PS3.8 9.3.2.2); where they are not, the last counts, and each is answered once
        for proposed in {each.id: each for each in request.proposals}.values():
            known = self._accepted.get(proposed.abstract)
            if known is None:
                answers.append((proposed.id, pdu.CLASS_REFUSED, _first(proposed)))
                continue
            chosen = next((syntax for syntax in known if syntax in proposed.syntaxes), None)
            if chosen is None:
                answers.append((proposed.id, pdu.SYNTAXES_REFUSED, _first(proposed)))
            else:
                accepted[proposed.id] = known[chosen]
                answers.append((proposed.id, pdu.ACCEPTED, chosen))
        commitment = contexts.STORAGE_COMMITMENT.encode()
        has_context = any(context.abstract == contexts.STORAGE_COMMITMENT for context in accepted.values())
        roles = {uid: role for uid, role in request.roles.items() if uid == commitment and has_context}
        information = pdu.user_information(self._max_length, self._implementation, roles)
        return accepted, len(answers) - len(accepted), pdu.accept_items(answers, information)


def _remember(table: dict[bytes, Known], items: bytes, value: Known) -> Known:
    """Keeps what fits; a stranger who proposes something else each time can't fill the memory."""
    if len(items) <= MOST_ITEM_BYTES:
        if len(table) >= MOST_REMEMBERED:
            table.clear()
        table[items] = value
    return value


def _first(proposed: pdu.Proposal) -> bytes:
    """In a refusal it means nothing, but must be there."""
    return proposed.syntaxes[0] if proposed.syntaxes else contexts.IMPLICIT_LITTLE.encode()
