"""TLS for DICOM by the BCP 195 profiles (PS3.15 B.9, B.10, B.12): contexts, both sides of the handshake, its failures.

TLS 1.2 and 1.3 only, ciphers with forward secrecy and authentication only. A destination's certificate is checked
against its host name; a peer of ours needs one only where `[receive.tls] ca` says who signs those.

OpenSSL's error texts are not passed on: reasons here are our own words, about the other side ("it").
"""

import contextlib
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from node.errors import Misuse

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# of TLS 1.2 (RFC 9325 4.2); those of TLS 1.3 are all of this kind
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM"
_MOST_SUBJECT = 200
_SHORT_NAMES = {
    "commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU", "countryName": "C",
    "localityName": "L", "stateOrProvinceName": "ST",
}  # fmt: skip

# X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_OTHER_NAME = {62, 64}
_NOT_TLS = "it does not speak TLS"
_TOO_OLD = "it speaks neither TLS 1.2 nor 1.3"
_NO_CIPHER = "it knows none of the ciphers that are safe"
_DISTRUST = "it does not trust our certificate"
_WANTS_CERTIFICATE = "it wants to see a certificate"
# OpenSSL's names of what it found; and, behind ALERT_, of what the other side said (RFC 8446 6.2)
_FOUND = {
    "WRONG_VERSION_NUMBER": _NOT_TLS,
    "HTTP_REQUEST": _NOT_TLS,
    "HTTPS_PROXY_REQUEST": _NOT_TLS,
    "PACKET_LENGTH_TOO_LONG": _NOT_TLS,
    "RECORD_LAYER_FAILURE": _NOT_TLS,
    "UNSUPPORTED_PROTOCOL": _TOO_OLD,
    "VERSION_TOO_LOW": _TOO_OLD,
    "NO_SHARED_CIPHER": _NO_CIPHER,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate",
}
_SAID = {
    "PROTOCOL_VERSION": _TOO_OLD,
    "UNKNOWN_CA": _DISTRUST,
    "BAD_CERTIFICATE": _DISTRUST,
    "UNSUPPORTED_CERTIFICATE": _DISTRUST,
    "CERTIFICATE_REVOKED": _DISTRUST,
    "CERTIFICATE_EXPIRED": _DISTRUST,
    "CERTIFICATE_UNKNOWN": _DISTRUST,
    "CERTIFICATE_REQUIRED": _WANTS_CERTIFICATE,
    # what TLS 1.2 says of either
    "HANDSHAKE_FAILURE": f"{_WANTS_CERTIFICATE}, or {_NO_CIPHER.removeprefix('it ')}",
}


class NoTls(Exception):
    """TLS was not agreed on; the text says why. `spoke`: the other side said something, which was not good enough."""

    def __init__(self, why: str, *, spoke: bool = True) -> None:
        super().__init__(why)
        self.spoke = spoke


@dataclass(frozen=True)
class Files:
    """PEM files of one side."""

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None


class Secured(ssl.SSLSocket):
    """A connection under TLS. For one thread; `shutdown` alone may be called by others too."""

    _receive_seconds: float | None = None
    _send_seconds: float | None = None

    def set_timeouts(self, receive: float, send: float) -> None:
        """In seconds: a call that waits longer raises TimeoutError. The kernel's own don't work under TLS."""
        self._receive_seconds, self._send_seconds = receive, send
        self.settimeout(receive)

    def sendall(self, data: "ReadableBuffer", flags: int = 0) -> None:
        self.settimeout(self._send_seconds)
        try:
            super().sendall(data, flags)
        finally:
            self.settimeout(self._receive_seconds)

    def shutdown(self, how: int) -> None:
        """Of the connection below: the library's own would send in the clear what is sent after it."""
        if how == socket.SHUT_WR:
            self._say_goodbye()
        socket.socket.shutdown(self, how)

    def close(self) -> None:
        if self.fileno() >= 0:
            self._say_goodbye()
        super().close()

    def shake_hands(self, seconds: float) -> None:
        """The handshake. Raises NoTls; the connection is of no use then, and is for the caller to close."""
        self.settimeout(seconds)
        try:
            self.do_handshake()
        except OSError as e:
            raise NoTls(_why(e), spoke=isinstance(e, ssl.SSLError) and not _is_end(e)) from e

    def drain(self, seconds: float) -> None:
        """After a handshake that failed: what still comes is dropped, lest our alert be lost to a reset."""
        until = time.monotonic() + seconds
        rest = bytearray(4096)
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self, socket.SHUT_WR)
            while (left := until - time.monotonic()) > 0:
                self.settimeout(left)
                if not socket.socket.recv_into(self, rest):
                    return

    @property
    def subject(self) -> str:
        """Whom the other side's certificate names, like "CN=CR_ROOM_2, O=Hospital"; empty: it showed none."""
        shown: Mapping[str, Any] = self.getpeercert() or {}
        parts = (part for group in shown.get("subject", ()) for part in group)
        names = [f"{_SHORT_NAMES.get(kind, kind)}={value}" for kind, value in parts]
        if not names:
            names = [f"{kind}={value}" for kind, value in shown.get("subjectAltName", ())]
        return "".join(c if c.isprintable() else "?" for c in ", ".join(names))[:_MOST_SUBJECT]

    def _say_goodbye(self) -> None:
        """close_notify (RFC 8446 6.1), without a wait for the other side's."""
        with contextlib.suppress(OSError, ValueError):
            self.settimeout(0)
            self.unwrap()


def accepting(files: Files) -> ssl.SSLContext:
    """For those who call us. Raises Misuse."""
    context = _tightened(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    # no resumption: what comes unasked would be lost on those who hang up, and answered by a reset
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    if files.ca:
        _load_authorities(context, files)
        context.verify_mode = ssl.CERT_REQUIRED
    _load_own(context, files)
    return context


@cache
def calling(files: Files) -> ssl.SSLContext:
    """For those whom we call, made once. Raises Misuse."""
    context = _tightened(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    if files.ca:
        _load_authorities(context, files)
    else:
        context.load_default_certs()
    if files.certificate:
        _load_own(context, files)
    return context


def accept(context: ssl.SSLContext, connection: socket.socket) -> Secured:
    """The connection under TLS, hands not shaken yet. Raises OSError where it is gone already."""
    secured = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    return cast(Secured, secured)


def call(files: Files, connection: socket.socket, host: str, where: str, seconds: float) -> Secured:
    """The connection under TLS, hands shaken, the certificate checked to be `host`'s; closed where it raises NoTls."""
    try:
        context = calling(files)
    except Misuse as e:
        connection.close()
        raise NoTls(str(e)) from e
    try:
        secured = cast(
            Secured, context.wrap_socket(connection, server_hostname=host, do_handshake_on_connect=False)
        )
    except (OSError, ValueError) as e:
        connection.close()
        raise NoTls(f"no TLS connection to {where}: it ended the connection") from e
    try:
        secured.shake_hands(seconds)
    except NoTls as e:
        secured.close()
        raise NoTls(_told(e, where, seconds)) from e
    return secured


def said(error: OSError) -> str:
    """What an alert of the other side, which came after the handshake, says; empty where the error is another."""
    reason = error.reason if isinstance(error, ssl.SSLError) else ""
    return _why(error) if reason and "ALERT_" in reason else ""


def _tightened(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    # a connection that ends without close_notify just ends: DICOM says itself where a message is whole, and our own
    # last word (A-ABORT) still goes out
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_IGNORE_UNEXPECTED_EOF
    context.sslsocket_class = Secured
    return context


def _load_authorities(context: ssl.SSLContext, files: Files) -> None:
    assert files.ca
    _holds(files.ca, "ca_file", b"CERTIFICATE-----", "certificate")
    try:
        context.load_verify_locations(files.ca)
    except (OSError, ValueError) as e:
        raise _damaged(files.ca, "ca_file") from e


def _load_own(context: ssl.SSLContext, files: Files) -> None:
    """Our certificate and its key."""
    certificate = files.certificate
    assert certificate
    key, key_name = (files.key, "key") if files.key else (certificate, "certificate")
    _holds(certificate, "certificate", b"CERTIFICATE-----", "certificate")
    _holds(key, key_name, b"PRIVATE KEY-----", "private key")

    def ask() -> NoReturn:
        raise Misuse(
            f"{key_name}: {key} asks for a pass phrase, and nobody is there to type it: "
            "write one without by `openssl pkey -in FILE -out NEW`"
        )

    try:
        context.load_cert_chain(certificate, files.key, ask)
    except ssl.SSLError as e:
        if e.reason == "KEY_VALUES_MISMATCH":
            raise Misuse(f"{key_name}: {key} is not the key of the certificate in {certificate}") from e
        raise _damaged(certificate, "certificate", f" or {key}" if files.key else "") from e


def _holds(file: Path, name: str, mark: bytes, what: str) -> None:
    """Raises Misuse where the file can't be read or has no such PEM block."""
    try:
        held = file.read_bytes()
    except OSError as e:
        why = e.strerror or "I/O error"
        raise Misuse(
            f"{name}: {file} can't be read ({why}): name a PEM file that Hilum's user may read"
        ) from e
    if b"-----BEGIN " not in held or mark not in held:
        raise Misuse(
            f"{name}: {file} holds no {what} in PEM (-----BEGIN …): convert it, or name another file"
        )


def _damaged(file: Path, name: str, more: str = "") -> Misuse:
    return Misuse(
        f"{name}: {file}{more} can't be understood: is it whole? `openssl x509 -in FILE -text` reads it"
    )


def _told(failure: NoTls, where: str, seconds: float) -> str:
    """To the one who runs the node, of a destination."""
    error = failure.__cause__
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OTHER_NAME:
            return f"the certificate of {where} is another host's: host must be a name that stands in it"
        return f"the certificate of {where} is not trusted ({error.verify_message}): ca_file names who may sign it"
    if isinstance(error, TimeoutError):
        return f"no TLS connection to {where} within {seconds:.0f} s"
    return f"no TLS connection to {where}: {failure}"


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return "it did not shake hands in time"
    if not isinstance(error, ssl.SSLError) or _is_end(error):
        return "it ended the connection: does it speak TLS?"
    reason = error.reason or ""
    known = _SAID.get(reason.partition("ALERT_")[2]) or _FOUND.get(reason)
    return known or f"the handshake failed ({reason.replace('_', ' ').lower() or 'no reason given'})"


def _is_end(error: OSError) -> bool:
    return isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError)
