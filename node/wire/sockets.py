"""Socket options that decide between 22 and 700 images a second.

DCMTK writes a PDU's header and its body in two calls. With Nagle's algorithm on its side and delayed
acknowledgements on ours, each image waits 44 ms for nothing; acknowledging at once lifts an unpatched `storescu`
from 22 images/s to 355-1440 (1 KB objects, loopback).
"""

import socket
import struct

# Linux only, and not sticky: the kernel falls back to delayed acknowledgements by itself
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


def no_delay(sock: socket.socket) -> None:
    """What we send leaves at once (no Nagle). Once a connection."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def acknowledge_at_once(sock: socket.socket) -> None:
    """What arrives is acknowledged at once. Before each wait for bytes, since it does not last."""
    if _QUICKACK is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)


def set_timeouts(sock: socket.socket, receive: float, send: float) -> None:
    """The kernel's own timeouts, in seconds: a call that waits longer raises BlockingIOError.

    `settimeout` would cost a poll() before each call.
    """
    for option, seconds in ((socket.SO_RCVTIMEO, receive), (socket.SO_SNDTIMEO, send)):
        sock.setsockopt(
            socket.SOL_SOCKET, option, struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
        )


def listen(host: str, port: int, backlog: int) -> socket.socket:
    """A listening socket, IPv4 or IPv6 as the host says. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock
