"""A C-STORE sender that says whatever it is told to: any UID, any bytes, cut anywhere (PS3.8 9.3, PS3.7 9.3.1)."""

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT = "1.2.840.10008.1.2"


@dataclass(frozen=True)
class Rejected(Exception):
    result: int
    source: int
    reason: int


class Aborted(Exception):
    """The peer aborted or closed."""


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBL", kind, 0, len(body)) + body


def request(proposals: Sequence[tuple[int, str, Sequence[str]]], called: str, calling: str) -> bytes:
    """A-ASSOCIATE-RQ; a proposal is (context id, abstract syntax, transfer syntaxes)."""
    body = struct.pack(">HH16s16s32x", 1, 0, called.ljust(16).encode(), calling.ljust(16).encode())
    body += item(0x10, APPLICATION_CONTEXT.encode())
    for context, abstract, syntaxes in proposals:
        sub = item(0x30, abstract.encode()) + b"".join(item(0x40, s.encode()) for s in syntaxes)
        body += item(0x20, struct.pack(">BBBB", context, 0, 0, 0) + sub)
    user = item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3.4")
    return pdu(1, body + item(0x50, user))


def store_command(sop_class: bytes, sop_instance: bytes, message: int = 1, data_set: int = 0) -> bytes:
    def element(number: int, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HHL", 0, number, len(value)) + value

    body = (
        element(0x0002, sop_class)
        + element(0x0100, struct.pack("<H", 1))
        + element(0x0110, struct.pack("<H", message))
        + element(0x0700, struct.pack("<H", 0))
        + element(0x0800, struct.pack("<H", data_set))
        + element(0x1000, sop_instance)
    )
    return element(0, struct.pack("<L", len(body))) + body


class Sender:
    """An association as requestor. `accepted`: context id -> transfer syntax; `refused`: context id -> result."""

    def __init__(
        self,
        port: int,
        proposals: Sequence[tuple[int, str, Sequence[str]]],
        called: str = "HILUM",
        calling: str = "RAW",
    ) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.accepted: dict[int, str] = {}
        self.refused: dict[int, int] = {}
        self.socket.sendall(request(proposals, called, calling))
        kind, body = self.read()
        if kind == 3:
            self.socket.close()
            raise Rejected(body[1], body[2], body[3])
        assert kind == 2, kind
        at = 68
        while at < len(body):
            code, length = struct.unpack_from(">BxH", body, at)
            value = body[at + 4 : at + 4 + length]
            at += 4 + length
            if code == 0x21 and value[2] == 0:
                self.accepted[value[0]] = value[8:].decode().rstrip("\0")
            elif code == 0x21:
                self.refused[value[0]] = value[2]

    def __enter__(self) -> "Sender":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def store(
        self, context: int, sop_class: bytes, sop_instance: bytes, data: bytes, step: int = 65536
    ) -> tuple[int, str]:
        """Sends one object in fragments of `step` bytes; status and Error Comment of the answer."""
        self.socket.sendall(self.message(context, sop_class, sop_instance, data, step))
        return self.answer()

    def message(
        self, context: int, sop_class: bytes, sop_instance: bytes, data: bytes, step: int = 65536
    ) -> bytes:
        out = [self.fragment(context, 3, store_command(sop_class, sop_instance))]
        pieces = [data[at : at + step] for at in range(0, len(data), step)] or [b""]
        for n, piece in enumerate(pieces):
            out.append(self.fragment(context, 2 if n == len(pieces) - 1 else 0, piece))
        return b"".join(out)

    @staticmethod
    def fragment(context: int, control: int, data: bytes) -> bytes:
        return pdu(4, struct.pack(">LBB", len(data) + 2, context, control) + data)

    def answer(self) -> tuple[int, str]:
        kind, body = self.read()
        if kind != 4:
            raise Aborted(kind)
        values: dict[int, bytes] = {}
        at = 6
        while at < len(body):
            _, number, length = struct.unpack_from("<HHL", body, at)
            values[number] = body[at + 8 : at + 8 + length]
            at += 8 + length
        return int.from_bytes(values[0x0900], "little"), values.get(0x0902, b"").decode().strip()

    def release(self) -> None:
        self.socket.sendall(pdu(5, bytes(4)))
        assert self.read()[0] == 6
        self.socket.close()

    def read(self) -> tuple[int, bytes]:
        head = self._exactly(6)
        return head[0], self._exactly(struct.unpack(">L", head[2:])[0])

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise Aborted("closed")
            data += piece
        return data
