"""An association as requestor, on a bare socket: as little between the clock and the node as possible (PS3.8 9.3)."""

import socket
import struct
from collections.abc import Sequence

from scripts.benchmarks.image import DX_FOR_PRESENTATION, EXPLICIT_LITTLE

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
# longer PDUs are never sent: DCMTK takes no longer ones
MAX_PDU = 131_072
# the node's; the classes of the other contexts are proposed and never used
IMAGE_CONTEXT = 1


class Rejected(Exception):
    """A-ASSOCIATE-RJ, or the image's context was refused."""


class Lost(Exception):
    """The peer aborted, closed, or answered nonsense."""


class Association:
    """`others`: the storage classes that are proposed beside DX, as a modality that can do much does."""

    def __init__(self, port: int, called: str, others: Sequence[str] = (), timeout: float = 60.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # a timeout of the kernel's: settimeout would put a poll before each call
        self.socket.settimeout(None)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.socket.setsockopt(
                socket.SOL_SOCKET, option, struct.pack("ll", int(timeout), int(timeout % 1 * 1e6))
            )
        try:
            self.socket.sendall(_request(called, others))
            self.max_pdu = self._accepted()
        except BaseException:
            self.socket.close()
            raise

    def _accepted(self) -> int:
        kind, body = self._pdu()
        if kind == 3:
            raise Rejected(f"association rejected: {body[1]}, {body[2]}, {body[3]}")
        if kind != 2:
            raise Lost(f"PDU of type {kind} instead of A-ASSOCIATE-AC")
        max_pdu, taken, at = 0, False, 68
        while at + 4 <= len(body):
            item, length = struct.unpack_from(">BxH", body, at)
            if item == 0x21 and body[at + 4] == IMAGE_CONTEXT:
                taken = body[at + 6] == 0
            elif item == 0x50 and body[at + 4] == 0x51:
                (max_pdu,) = struct.unpack_from(">L", body, at + 8)
            at += 4 + length
        if not taken:
            raise Rejected("the image's presentation context was refused")
        return min(max_pdu or MAX_PDU, MAX_PDU)

    def status(self) -> int:
        """The status of the next C-STORE-RSP."""
        command = b""
        while True:
            kind, body = self._pdu()
            if kind != 4:
                raise Lost("aborted by the peer" if kind == 7 else f"PDU of type {kind} instead of an answer")
            at = 0
            while at < len(body):
                (length,) = struct.unpack_from(">L", body, at)
                command += body[at + 6 : at + 4 + length]
                last = body[at + 5] & 2
                at += 4 + length
                if last:
                    return _status(command)

    def release(self) -> None:
        try:
            self.socket.sendall(struct.pack(">BxLL", 5, 4, 0))
            self._pdu()
        except (OSError, Lost):
            pass
        self.socket.close()

    def _pdu(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxL", self._exactly(6))
        if length > 2**20:
            raise Lost(f"a PDU of {length} bytes")
        return kind, self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        got = self.socket.recv(length, socket.MSG_WAITALL)
        while len(got) < length:
            more = self.socket.recv(length - len(got), socket.MSG_WAITALL)
            if not more:
                raise Lost("closed by the peer")
            got += more
        return got


def _request(called: str, others: Sequence[str]) -> bytes:
    def item(kind: int, body: bytes) -> bytes:
        return struct.pack(">BxH", kind, len(body)) + body

    def context(number: int, abstract: str, *syntaxes: str) -> bytes:
        items = item(0x30, abstract.encode()) + b"".join(item(0x40, s.encode()) for s in syntaxes)
        return item(0x20, struct.pack(">B3x", number) + items)

    body = struct.pack(">H2x16s16s32x", 1, called.ljust(16).encode(), b"BENCH".ljust(16))
    body += item(0x10, b"1.2.840.10008.3.1.1.1")
    # Explicit alone where the image goes, so that all peers store the same bytes
    body += context(IMAGE_CONTEXT, DX_FOR_PRESENTATION, EXPLICIT_LITTLE)
    for number, abstract in enumerate(others, 1):
        body += context(2 * number + 1, abstract, EXPLICIT_LITTLE, IMPLICIT_LITTLE)
    body += item(0x50, item(0x51, struct.pack(">L", MAX_PDU)) + item(0x52, b"2.25.1"))
    return struct.pack(">BxL", 1, len(body)) + body


def _status(command: bytes) -> int:
    at = 0
    while at + 8 <= len(command):
        _, number, length = struct.unpack_from("<HHL", command, at)
        if number == 0x0900:
            (status,) = struct.unpack_from("<H", command, at + 8)
            return int(status)
        at += 8 + length
    raise Lost("an answer without status")
