"""The bytes of an association, taken apart where they lie (PS3.8 9.3, Annex E).

    buffer of received bytes ──► Stream.take ──► Consumer: pdu(kind, body) | fragment(context, control, payload, ends)

What it keeps between two calls is how much of a PDU and of a fragment is still to come, so a fragment may be larger
than the buffer, a PDU may hold several, and the bytes may be cut anywhere. Nothing is ever allocated by an announced
length. Knows no socket, no thread and no object.
"""

from typing import Protocol

from node.wire import pdu

# of PDUs but P-DATA-TF; 128 contexts with 45 transfer syntaxes each are 155 kB
MAX_REQUEST_BYTES = 2**20
# peers that ignore what was announced exist; beyond this it is an attack or garbage
MAX_DATA_BYTES = 2**28
_KNOWN = frozenset(range(pdu.A_ASSOCIATE_RQ, pdu.A_ABORT + 1))


class Violation(Exception):
    """The peer breaks the protocol: A-ABORT with this reason (PS3.8 9.3.8). `silent`: it never spoke DICOM."""

    def __init__(self, says: str, reason: int, *, silent: bool = False) -> None:
        super().__init__(says)
        self.reason = reason
        self.silent = silent


class Consumer(Protocol):
    """What is done with what was taken apart. May raise Violation."""

    def pdu(self, kind: int, body: bytes) -> bool:
        """A whole PDU that is no P-DATA-TF, without its header. False: whatever follows is dropped unread."""

    def fragment(self, context: int, control: int, payload: memoryview, ends: bool) -> None:
        """A piece of one fragment, as large as it lies in the buffer; `ends`: it is the fragment's last piece.

        The memory is the buffer's: whoever needs it after `take` has returned copies it.
        """

    def end_of_data(self) -> None:
        """The P-DATA-TF of the last fragments is whole."""


class Stream:
    """One association's stream, from its first byte."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        # still to come of the current P-DATA-TF, and of the current fragment in it
        self._pdu_left = 0
        self._pdv_left = 0
        self._in_pdv = False
        self._context = 0
        self._control = 0
        # any other PDU: its type, its length, and what came of it
        self._kind = 0
        self._length = 0
        self._body = bytearray()
        self._begun = False

    @property
    def is_between(self) -> bool:
        """Nothing of a PDU has come but whole ones."""
        return not (self._pdu_left or self._in_pdv or self._kind)

    def take(self, view: memoryview) -> int:
        """Takes what can be taken; how many bytes that were: the rest is the start of a header. Raises Violation."""
        at, end = 0, len(view)
        fragment = self._consumer.fragment
        while True:
            if self._in_pdv:
                take = min(self._pdv_left, end - at)
                self._pdv_left -= take
                self._pdu_left -= take
                if not take and self._pdv_left:
                    return at
                self._in_pdv = bool(self._pdv_left)
                fragment(self._context, self._control, view[at : at + take], not self._in_pdv)
                at += take
                if not self._pdu_left:
                    self._consumer.end_of_data()
            elif self._pdu_left:
                if end - at < pdu.PDV_HEADER.size:
                    return at
                self._begin_fragment(*pdu.PDV_HEADER.unpack_from(view, at))
                at += pdu.PDV_HEADER.size
            elif self._kind:
                take = min(self._length - len(self._body), end - at)
                self._body += view[at : at + take]
                at += take
                if len(self._body) < self._length:
                    return at
                kind, body = self._kind, bytes(self._body)
                self._kind = 0
                self._body = bytearray()
                if not self._consumer.pdu(kind, body):
                    return end
            else:
                if end - at < pdu.HEADER.size:
                    if end > at:
                        self._check_kind(view[at])
                    return at
                self._begin_pdu(*pdu.HEADER.unpack_from(view, at))
                at += pdu.HEADER.size

    def _begin_pdu(self, kind: int, length: int) -> None:
        self._check_kind(kind)
        self._begun = True
        if kind == pdu.P_DATA_TF:
            if not 6 <= length <= MAX_DATA_BYTES:
                raise Violation("a P-DATA-TF of an impossible length", pdu.INVALID_PARAMETER)
            self._pdu_left = length
            return
        if length > MAX_REQUEST_BYTES:
            raise Violation("a PDU longer than 1 MiB", pdu.INVALID_PARAMETER)
        self._kind, self._length = kind, length

    def _check_kind(self, kind: int) -> None:
        """A TLS hello and a browser's first words are no DICOM: nobody is there to be told so."""
        if kind not in _KNOWN:
            raise Violation("a PDU of an unknown type", pdu.UNRECOGNIZED_PDU, silent=not self._begun)

    def _begin_fragment(self, length: int, context: int, control: int) -> None:
        # the length counts context and control, and lies behind 4 bytes of its own
        if length < 2 or length + 4 > self._pdu_left:
            raise Violation("a fragment that lies about its length", pdu.INVALID_PARAMETER)
        self._pdu_left -= pdu.PDV_HEADER.size
        self._pdv_left = length - 2
        if self._pdu_left - self._pdv_left in range(1, pdu.PDV_HEADER.size):
            raise Violation("a P-DATA-TF whose fragments don't fill it", pdu.INVALID_PARAMETER)
        self._context, self._control, self._in_pdv = context, control, True
