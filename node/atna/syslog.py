"""How a message travels: RFC 5424 around it, below that TLS (RFC 5425) or UDP (RFC 5426), as PS3.15 A.6 and A.7 say.

Syslog has no acknowledgement. Over TLS `acknowledged` tells how much the other side's kernel has, and `finish` whether
its program has read everything; by UDP nobody can tell.
"""

import contextlib
import errno
import fcntl
import os
import socket
import ssl
import struct
import termios
import time
from typing import Protocol

from node.certificates import of_repository
from node.settings import Repository
from node.wire import tls

# security/authorization messages; normal but significant, or a warning (PS3.15 A.6)
FACILITY, NOTICE, WARNING = 10, 5, 4
MSGID = "DICOM+RFC3881"
ANCHOR_MSGID = "HILUM-ANCHOR"
APP_NAME = "hilum"
BOM = b"\xef\xbb\xbf"

# the payload of the largest IPv4 datagram
DATAGRAM_BYTES = 65_507
# in a row; a server's receive buffer of 208 KiB, which is Linux's default, holds some 50
DATAGRAMS = 20
DATAGRAM_PAUSE_SECONDS = 0.01

CONNECT_SECONDS = 10.0
SEND_SECONDS = 30.0
REFUSAL_SECONDS = 0.5
# a peer that vanished without a word is noticed after so long
SILENCE_SECONDS = 60


class Down(Exception):
    """The server can't be reached, or the connection broke; the text says why, in our own words."""


class TooLong(Exception):
    """A message does not fit into a datagram."""


class Line(Protocol):
    """A way to the server. Every method but `close` raises Down."""

    def send(self, message: bytes) -> int:
        """One syslog message; how many bytes it was. Raises TooLong."""

    def look(self, seconds: float = 0.0) -> None:
        """Is it still there? Waits so long for a word that it is not: raises Down then."""

    def acknowledged(self) -> int:
        """So many bytes of messages, of all that were sent, the other side has for sure."""

    def finish(self, seconds: float) -> bool:
        """Says good-bye and waits for the other side's end; whether all has been read there."""

    def close(self) -> None: ...


def packet(text: bytes, *, time: str, host: str, failed: bool = False, msgid: str = MSGID) -> bytes:
    """A SYSLOG-MSG (RFC 5424 6). `text` is UTF-8; `time` a stamp; PROCID this process's."""
    priority = FACILITY * 8 + (WARNING if failed else NOTICE)
    head = f"<{priority}>1 {time} {_ascii(host, 255)} {APP_NAME} {os.getpid()} {msgid} - "
    return head.encode() + BOM + text


def framed(message: bytes) -> bytes:
    """SYSLOG-FRAME: octet counting (RFC 5425 4.3)."""
    return b"%d %s" % (len(message), message)


def connect(repository: Repository) -> Line:
    """A line to the server. Raises Down."""
    return Datagrams(repository) if repository.transport == "udp" else Stream(repository)


class Stream:
    """TLS; the server's certificate is checked before anything is sent."""

    def __init__(self, repository: Repository) -> None:
        host, port = repository.host, repository.port
        self._where = f"{host}:{port}"
        plain = _connected(host, port)
        try:
            self._connection = tls.call(of_repository(repository), plain, host, self._where, CONNECT_SECONDS)
        except tls.NoTls as e:
            raise Down(str(e)) from e
        self._connection.set_timeouts(receive=SEND_SECONDS, send=SEND_SECONDS)
        self._sent = 0

    def send(self, message: bytes) -> int:
        data = framed(message)
        try:
            self._connection.sendall(data)
        except OSError as e:
            raise self._broken(e) from e
        self._sent += len(data)
        return len(data)

    def look(self, seconds: float = 0.0) -> None:
        """What the server says is nothing; that it ends the connection is heard here."""
        try:
            self._connection.settimeout(seconds)
            try:
                heard = self._connection.recv(4096)
            finally:
                self._connection.settimeout(SEND_SECONDS)
        except (BlockingIOError, ssl.SSLWantReadError, TimeoutError):
            return
        except OSError as e:
            raise self._broken(e) from e
        if not heard:
            raise Down(f"{self._where} ended the connection")

    def acknowledged(self) -> int:
        """What the kernel still holds (SIOCOUTQ, tcp(7)) is counted with TLS's own bytes, so this errs to the safe
        side."""
        try:
            held = fcntl.ioctl(self._connection.fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError as e:
            raise self._broken(e) from e
        return max(0, self._sent - int(struct.unpack("i", held)[0]))

    def finish(self, seconds: float) -> bool:
        """close_notify and the end of our side. The other side's end comes after it has read all before that; a reset
        comes where it has not."""
        until = time.monotonic() + seconds
        try:
            self._connection.shutdown(socket.SHUT_WR)
            while (left := until - time.monotonic()) > 0:
                self._connection.settimeout(left)
                if not socket.socket.recv(self._connection, 4096):
                    return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.close()

    def _broken(self, error: OSError) -> Down:
        said = tls.said(error)
        if said:
            return Down(f"{self._where} refused the connection: {said}")
        if isinstance(error, TimeoutError):
            return Down(f"{self._where} took nothing for {SEND_SECONDS:.0f} s")
        return Down(f"the connection to {self._where} broke")


class Datagrams:
    """UDP, a message a datagram. Where nobody listens the kernel may tell, after the first one is lost."""

    def __init__(self, repository: Repository) -> None:
        host, port = repository.host, repository.port
        self._where = f"{host}:{port}"
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            self._socket = socket.socket(family, kind, protocol)
            self._socket.connect(address)
        except OSError as e:
            raise Down(_unreachable(self._where, e)) from e
        self._sent = 0
        self._in_a_row = 0

    def send(self, message: bytes) -> int:
        if len(message) > DATAGRAM_BYTES:
            raise TooLong
        if self._in_a_row == DATAGRAMS:
            time.sleep(DATAGRAM_PAUSE_SECONDS)
            self._in_a_row = 0
        try:
            self._socket.send(message)
        except OSError as e:
            if e.errno == errno.EMSGSIZE:
                raise TooLong from e
            raise Down(_unreachable(self._where, e)) from e
        self._in_a_row += 1
        self._sent += len(message)
        return len(message)

    def look(self, seconds: float = 0.0) -> None:
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise Down(_unreachable(self._where, OSError(error, os.strerror(error))))

    def acknowledged(self) -> int:
        return self._sent

    def finish(self, seconds: float) -> bool:
        return True

    def close(self) -> None:
        self._socket.close()


def _connected(host: str, port: int) -> socket.socket:
    try:
        plain = socket.create_connection((host, port), CONNECT_SECONDS)
    except OSError as e:
        raise Down(_unreachable(f"{host}:{port}", e)) from e
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", SILENCE_SECONDS // 2),
        ("TCP_KEEPINTVL", SILENCE_SECONDS // 6),
        ("TCP_USER_TIMEOUT", SILENCE_SECONDS * 1000),
    ):
        # Linux's
        if hasattr(socket, name):
            plain.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return plain


def _unreachable(where: str, error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"no connection to {where} within {CONNECT_SECONDS:.0f} s"
    if isinstance(error, socket.gaierror):
        return f"no connection to {where}: its name is not known"
    return f"no connection to {where}: {(error.strerror or 'unreachable').lower()}"


def _ascii(text: str, most: int) -> str:
    """PRINTUSASCII, or the nil value (RFC 5424 6.2)."""
    return "".join(c for c in text if "!" <= c <= "~")[:most] or "-"
