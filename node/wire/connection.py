"""A connection to a peer that we called: PDUs out and in, each wait bounded (PS3.8 9.1).

The socket does not block: while we wait to send, an abort of the peer is heard, and each wait ends in time. What raises
has closed the connection.

    NoAssociation
    ├── NotConnected    nobody there, or not in time, or no TLS with it
    ├── Rejected        A-ASSOCIATE-RJ: result, source and reason (`requestor`)
    ├── NoAnswer        not in time
    └── Ended           aborted, released or closed by the peer
        └── Broken      it did not keep to the protocol
"""

import contextlib
import select
import socket
import ssl
import time

from node.wire import pdu, tls
from node.wire.sockets import acknowledge_at_once, no_delay

# a peer may ignore what we announce; beyond this it is no DICOM
MAX_PDU_BYTES = 1 << 20
_RECEIVE_BYTES = 65_536
# a socket that does not block would have to wait
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
# PS3.8 9.1.5, ARTIM: how long the peer may take to close once all is said
HANG_UP_SECONDS = 1.0


class NoAssociation(Exception):
    """There is no association, or not any more. The message names no patient."""


class NotConnected(NoAssociation):
    """No connection, or none of the kind that is wanted."""


class NoAnswer(NoAssociation):
    """The peer did not answer, or stopped reading, for as long as it may take."""


class Ended(NoAssociation):
    """The peer aborted, released or closed."""


class Broken(Ended):
    """The peer did not keep to the protocol; the association was aborted."""


class Connection:
    """A socket and what came in on it that is not read yet. For one thread. Deadlines are of the monotonic clock."""

    def __init__(self, host: str, port: int, seconds: float, files: tls.Files | None = None) -> None:
        """`seconds`: to connect, and again to shake hands; by TLS where there are `files`. Raises NotConnected."""
        self._where = f"{host}:{port}"
        self._socket = _connected(host, port, seconds, files)
        self._readable, self._either = select.poll(), select.poll()
        self._readable.register(self._socket, select.POLLIN)
        self._either.register(self._socket, select.POLLIN | select.POLLOUT)
        self._received = bytearray()
        # in TLS 1.3 it is told after the handshake, in place of the first answer, that our certificate is not good
        self._is_first = True
        self._refusal = ""
        self.closed = False

    def has_arrived(self, seconds: float = 0) -> bool:
        """Whether the peer has said something, its end included, or does so within `seconds`."""
        if self.closed:
            return False
        deadline = time.monotonic() + seconds
        # under TLS what arrives need not be for us: a session ticket
        while not self._received:
            if not self._readable.poll(_milliseconds(deadline)):
                return False
            if not self._take_in():
                return True
        return True

    def send(self, data: bytes | memoryview, deadline: float) -> None:
        """Sends all of it. Raises NoAnswer, Ended; no abort goes out then, since it would lie within a PDU."""
        if self.closed:
            raise Ended("there is no association any more")
        left = memoryview(data)
        while left:
            try:
                left = left[self._socket.send(left) :]
            except _NOT_NOW:
                self._wait_to_send(deadline)
            except OSError as e:
                # what it said before it closed may still lie here
                while len(self._received) <= MAX_PDU_BYTES and self._readable.poll(0) and self._take_in():
                    pass
                raise self._ended() from e

    def read(self, deadline: float) -> tuple[int, bytes]:
        """Type and body of the next PDU. Memory grows by what has come, never by what was announced.

        Raises NoAnswer, Ended.
        """
        self._receive(pdu.HEADER.size, deadline)
        kind, length = pdu.HEADER.unpack_from(self._received)
        if not pdu.A_ASSOCIATE_RQ <= kind <= pdu.A_ABORT:
            raise self.broken("an unknown PDU", pdu.UNRECOGNIZED_PDU)
        if length > MAX_PDU_BYTES:
            raise self.broken("a PDU of more than 1 MiB", pdu.INVALID_PARAMETER)
        end = pdu.HEADER.size + length
        self._receive(end, deadline)
        body = bytes(self._received[pdu.HEADER.size : end])
        del self._received[:end]
        return kind, body

    def broken(self, what: str, reason: int) -> Broken:
        """Aborts; the error to raise. `reason`: PS3.8 9.3.8."""
        self.end_with(pdu.abort(pdu.BY_PROVIDER, reason))
        return Broken(what)

    def end_with(self, last: bytes) -> None:
        """Our last PDU; then reads and drops until the peer closes, so that it is not lost to a reset (Sta13)."""
        if self.closed:
            return
        deadline = time.monotonic() + HANG_UP_SECONDS
        with contextlib.suppress(OSError):
            self._socket.send(last)
            self._socket.shutdown(socket.SHUT_WR)
            while (left := _milliseconds(deadline)) and self._readable.poll(left):
                with contextlib.suppress(*_NOT_NOW):
                    if not self._socket.recv(_RECEIVE_BYTES):
                        break
        self.close()

    def close(self) -> None:
        self.closed = True
        self._socket.close()

    def _receive(self, size: int, deadline: float) -> None:
        """Waits until so many bytes are there."""
        while len(self._received) < size:
            if self.closed:
                raise Ended("there is no association any more")
            acknowledge_at_once(self._socket)
            left = _milliseconds(deadline)
            if not left or not self._readable.poll(left):
                self.end_with(pdu.abort(pdu.BY_USER))
                raise NoAnswer("no answer in time")
            if not self._take_in():
                raise self._ended()

    def _take_in(self) -> bool:
        """What has arrived, put to what is not read yet; False at its end."""
        try:
            piece = self._socket.recv(_RECEIVE_BYTES)
        except _NOT_NOW:
            return True
        except OSError as e:
            self._refusal = tls.said(e) if self._is_first else ""
            return False
        self._is_first = False
        self._received += piece
        return bool(piece)

    def _wait_to_send(self, deadline: float) -> None:
        events = self._either.poll(_milliseconds(deadline))
        if not events:
            self.close()
            raise NoAnswer("the peer stopped reading")
        if events[0][1] & select.POLLIN:
            ended = not self._take_in()
            # an answer may come early; anything else while we send is the end
            if ended or self._aborted or len(self._received) > MAX_PDU_BYTES:
                raise self._ended()

    @property
    def _aborted(self) -> bool:
        return self._received[:1] == bytes((pdu.A_ABORT,))

    def _ended(self) -> Ended | NotConnected:
        self.close()
        if self._refusal:
            return NotConnected(f"no TLS connection to {self._where}: {self._refusal}")
        return Ended("aborted by the peer" if self._aborted else "closed by the peer")


def _connected(host: str, port: int, seconds: float, files: tls.Files | None) -> socket.socket:
    where = f"{host}:{port}"
    try:
        sock = socket.create_connection((host, port), seconds)
    except TimeoutError as e:
        raise NotConnected(f"no connection to {where} within {seconds:.0f} s") from e
    except (socket.gaierror, UnicodeError) as e:
        raise NotConnected(f"the host name {host} is not known") from e
    except OSError as e:
        raise NotConnected(f"no connection to {where}: refused or unreachable") from e
    no_delay(sock)
    if files is not None:
        try:
            sock = tls.call(files, sock, host, where, seconds)
        except tls.NoTls as e:
            raise NotConnected(str(e)) from e
    sock.setblocking(False)
    return sock


def _milliseconds(deadline: float) -> int:
    return max(0, round((deadline - time.monotonic()) * 1000))
