"""A peer that says byte for byte what the test tells it to."""

import socket
import threading
from collections.abc import Callable

from node.wire import command, pdu

Script = Callable[["Line"], None]


class Line:
    """The peer's end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.heard: list[int] = []
        self.request = pdu.Request(1, b"", b"", b"", b"", b"", ())

    def read(self) -> tuple[int, bytes]:
        """The next PDU; (0, b"") at the end."""
        head = self._exactly(pdu.HEADER.size)
        if not head:
            return 0, b""
        kind, length = pdu.HEADER.unpack(head)
        self.heard.append(kind)
        return kind, self._exactly(length)

    def say(self, *pieces: bytes) -> None:
        self.sock.sendall(b"".join(pieces))

    def accept(self, max_length: int = 16_384, syntaxes: dict[int, bytes] | None = None) -> None:
        """Reads the request and accepts each context in its first transfer syntax, or in those that are given."""
        _, body = self.read()
        self.request = pdu.parse_request(body)
        self.say(acceptance(self.request, max_length, syntaxes))

    def message(self) -> tuple[dict[int, bytes], bytes]:
        """The next whole message: command set, data set."""
        parts: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        while True:
            kind, body = self.read()
            assert kind == pdu.P_DATA_TF, kind
            length, _, control = pdu.PDV_HEADER.unpack_from(body)
            assert length + 4 == len(body)
            parts[not control & pdu.COMMAND].extend(body[pdu.PDV_HEADER.size :])
            if control & pdu.LAST:
                values = command.parse(parts[0])
                kinds = command.number(values, command.DATA_SET_TYPE)
                if not control & pdu.COMMAND or kinds == command.NO_DATA_SET:
                    return values, bytes(parts[1])

    def answer(self, values: dict[int, bytes], status: int = 0) -> None:
        self.say(pdu.message(1, command.response(values, status)))

    def until_closed(self) -> None:
        while self.read()[0]:
            pass

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                piece = self.sock.recv(size - len(data))
            except ConnectionError:
                return b""
            if not piece:
                return b""
            data += piece
        return data


def acceptance(
    request: pdu.Request, max_length: int = 16_384, syntaxes: dict[int, bytes] | None = None
) -> bytes:
    taken = {p.id: p.syntaxes[0] for p in request.proposals} if syntaxes is None else syntaxes
    answers = [(p.id, 0 if p.id in taken else 3, taken.get(p.id, b"")) for p in request.proposals]
    information = pdu.user_information(max_length, ("1.2.3", "PEER"), request.roles)
    return pdu.accept(request, pdu.accept_items(answers, information))


class Peer:
    """Listens, and plays its script to the first who calls; `line` is what it saw."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.line: Line | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._thread.start()

    def _play(self) -> None:
        with self._server:
            sock, _ = self._server.accept()
        with sock:
            sock.settimeout(20)
            self.line = Line(sock)
            try:
                self._script(self.line)
            except (AssertionError, OSError, ValueError) as e:
                self.error = e

    def end(self) -> Line:
        """What it saw, once its script is played."""
        self._thread.join(20)
        if self.error:
            raise self.error
        assert self.line and not self._thread.is_alive()
        return self.line
