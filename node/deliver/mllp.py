"""Delivery of HL7 v2 messages over MLLP (HL7 v2 transport specification, appendix C): one message, one acknowledgement.

    0B <message> 1C 0D

The message is the file's bytes, with the receiver's names (MSH-5, MSH-6) filled in. Its control id (MSH-10) is the
same each time it is sent, so that a receiver knows a repeat; the acknowledgement must name it (MSA-2). The library's
client has neither timeouts nor TLS, so the socket is our own.

What an acknowledgement says beside its codes (MSA-3, ERR-8) may name a patient: it is not kept.
"""

import select
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from node.deliver.outcome import Outcome, Parked, Postponed, of_acknowledgement
from node.settings import Hl7Destination
from node.wire.sockets import no_delay
from storage.outbox import Delivery

START, END = b"\x0b", b"\x1c\x0d"
MOST_ANSWER_BYTES = 1 << 16


@dataclass(frozen=True)
class Timeouts:
    """Seconds. `response`: from the message's last byte to the acknowledgement's."""

    connect: float = 10.0
    response: float = 60.0


class Hl7Sender:
    """One destination that takes HL7 v2, and the connection to it while there is work."""

    def __init__(self, destination: Hl7Destination, timeouts: Timeouts = Timeouts()) -> None:
        self._destination = destination
        self._timeouts = timeouts
        self._socket: socket.socket | None = None

    def send(self, delivery: Delivery, file: Path) -> Outcome:
        """One message and its acknowledgement. Raises what reading a damaged file raises."""
        message = addressed(file.read_bytes(), self._destination.application, self._destination.facility)
        if self._socket is not None and _is_over(self._socket):
            # many receivers end the connection after each message
            self.rest()
        if self._socket is None:
            opened = connect(self._destination, self._timeouts.connect)
            if isinstance(opened, Postponed):
                return opened
            self._socket = opened
        outcome = self._exchange(self._socket, message)
        if isinstance(outcome, Postponed):
            # an answer that comes late must not be taken for the next message's
            self.rest()
        return outcome

    def rest(self) -> None:
        """Closes the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _exchange(self, opened: socket.socket, message: bytes) -> Outcome:
        where = f"{self._destination.host}:{self._destination.port}"
        try:
            opened.settimeout(self._timeouts.response)
            opened.sendall(START + message + END)
            answer = _received(opened, time.monotonic() + self._timeouts.response)
        except TimeoutError:
            return Postponed(f"no acknowledgement from {where} within {self._timeouts.response:.0f} s")
        except OSError:
            return Postponed(f"{where} ended the connection before the acknowledgement")
        return of_answer(answer, _fields(message)[9])


def connect(destination: Hl7Destination, seconds: float) -> socket.socket | Postponed:
    """An open connection, by TLS where it is asked for."""
    where = f"{destination.host}:{destination.port}"
    try:
        opened = socket.create_connection((destination.host, destination.port), seconds)
    except TimeoutError:
        return Postponed(f"no connection to {where} within {seconds:.0f} s")
    except socket.gaierror:
        return Postponed(f"the host name {destination.host} is not known")
    except (OSError, UnicodeError):
        return Postponed(f"no connection to {where}: refused or unreachable")
    no_delay(opened)
    if not destination.tls:
        return opened
    try:
        context = ssl.create_default_context(cafile=destination.ca_file)
        return context.wrap_socket(opened, server_hostname=destination.host)
    except ssl.SSLCertVerificationError as e:
        reason = (
            f"the certificate of {where} is not trusted ({e.verify_message}): ca_file names who may sign it"
        )
    except TimeoutError:
        reason = f"no TLS connection to {where} within {seconds:.0f} s"
    except FileNotFoundError:
        reason = "ca_file does not exist"
    except OSError:
        reason = f"no TLS connection to {where}"
    opened.close()
    return Postponed(reason)


def addressed(message: bytes, application: str, facility: str) -> bytes:
    """The message with MSH-5 and MSH-6 filled in; `^` in them parts components, as in HL7 itself."""
    fields = _fields(message)
    fields[4], fields[5] = _escaped(application), _escaped(facility)
    _, separator, rest = message.partition(b"\r")
    return b"|".join(fields) + separator + rest


def of_answer(answer: bytes, control_id: bytes) -> Outcome:
    """What an acknowledgement of the message with this control id means."""
    segments = answer.strip(b"\r\n").replace(b"\n", b"\r").split(b"\r")
    if not segments[0].startswith(b"MSH") or len(segments[0]) < 4:
        return Parked("the destination answered no HL7 message")
    separator = segments[0][3:4]
    parted = [segment.split(separator) for segment in segments]
    msa = next((fields for fields in parted if fields[0] == b"MSA"), [])
    if len(msa) < 3:
        return Parked("the destination answered a message that is no acknowledgement")
    if msa[2] != control_id:
        return Postponed("the destination acknowledged another message")
    err = next((fields for fields in parted if fields[0] == b"ERR"), [])
    error = err[3].split(b"^")[0] if len(err) > 3 else b""
    return of_acknowledgement(msa[1].decode("ascii", "replace"), error.decode("ascii", "replace"))


def _fields(message: bytes) -> list[bytes]:
    """MSH's, by their numbers less one: its first is the separator itself."""
    return message.partition(b"\r")[0].split(b"|")


def _escaped(name: str) -> bytes:
    for mark, letter in (("\\", "E"), ("|", "F"), ("~", "R"), ("&", "T")):
        name = name.replace(mark, f"\\{letter}\\")
    return "".join(c for c in name if c.isprintable()).encode()


def _received(opened: socket.socket, until: float) -> bytes:
    """The block of the answer, without its frame. Raises OSError; TimeoutError where it is not whole in time."""
    data = b""
    while END not in data:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        opened.settimeout(left)
        piece = opened.recv(4096)
        if not piece or len(data) > MOST_ANSWER_BYTES:
            raise ConnectionError
        data += piece
    return data[: data.index(END)].lstrip(START)


def _is_over(opened: socket.socket) -> bool:
    """Has the peer ended the connection, or said what nobody asked for?"""
    return bool(select.select([opened], [], [], 0)[0])
