"""Delivery by C-STORE: Hilum as the requestor of an association (PS3.4 Annex B, PS3.7 9.1.1, PS3.8).

An association stays open while there is work and is released when there is none: an idle one blocks a thread of
Orthanc's (with four of its four threads held, 1.6 images/s of 116 are left). A result's file goes out as its bytes
are, without decoding; only for a peer that takes nothing but Implicit VR is it encoded anew.

Libraries' error texts and the peer's Error Comment may quote a patient: reasons here are our own words.
"""

import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.uid import UID
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.dsutils import split_dataset

from node.deliver.outcome import Outcome, Parked, Postponed, of_status
from node.settings import DimseDestination
from node.wire.contexts import EXPLICIT_LITTLE, IMPLICIT_LITTLE, VERIFICATION
from node.wire.kinds import class_of
from node.wire.sockets import acknowledge_at_once, no_delay
from storage.outbox import Delivery

# PS3.8 9.3.3.2: the answer to a proposed presentation context
_REFUSALS = {
    1: "user rejection",
    2: "no reason given",
    3: "SOP class not supported",
    4: "transfer syntax not supported",
}


@dataclass(frozen=True)
class Timeouts:
    """Seconds. `response` counts from the first byte of a request to its answer, slow networks included."""

    connect: float = 10.0
    associate: float = 30.0
    response: float = 120.0


@dataclass(frozen=True)
class EchoResult:
    """How a destination answers: to C-ECHO, and to our results' SOP classes (result kind -> accepted)."""

    answered: bool
    reason: str
    seconds: float
    accepts: dict[str, bool] = field(default_factory=dict)


def result_classes(destination: DimseDestination) -> dict[str, str]:
    """The SOP class of each kind of result that the destination is configured for."""
    return {kind: class_of(kind, destination.sr_class) for kind in destination.results}


def echo(destination: DimseDestination, ae_title: str, timeouts: Timeouts = Timeouts()) -> EchoResult:
    """C-ECHOs, proposing the result classes beside Verification. Never raises."""
    began = time.monotonic()
    wanted = result_classes(destination)
    opened = _open(destination, ae_title, [VERIFICATION, *wanted.values()], timeouts)
    if not isinstance(opened, _Open):
        return EchoResult(False, opened.reason, time.monotonic() - began)
    accepts = {kind: bool(opened.syntaxes(sop_class)) for kind, sop_class in wanted.items()}
    if not opened.syntaxes(VERIFICATION):
        opened.close()
        return EchoResult(False, "the destination does not take C-ECHO", time.monotonic() - began, accepts)
    try:
        status = opened.association.send_c_echo().get("Status")
    except RuntimeError:
        status = None
    opened.close()
    reason = "" if status == 0 else "no answer to C-ECHO" if status is None else f"C-ECHO: {status:04X}"
    return EchoResult(status == 0, reason, time.monotonic() - began, accepts)


class DimseSender:
    """One destination that is a DICOM peer, and the association to it while there is work."""

    def __init__(self, destination: DimseDestination, ae_title: str, timeouts: Timeouts = Timeouts()) -> None:
        # a path is sent as the file's bytes; without this pynetdicom decodes and encodes it (half the rate)
        _config.STORE_SEND_CHUNKED_DATASET = True
        self._destination = destination
        self._ae_title = ae_title
        self._timeouts = timeouts
        self._open: _Open | None = None

    def send(self, delivery: Delivery, file: Path) -> Outcome:
        """One C-STORE; opens the association where none is open or the open one lacks the class.

        Raises what reading a damaged file raises.
        """
        if self._open and not self._open.serves(delivery.sop_class):
            self.rest()
        if self._open is None:
            classes = [delivery.sop_class, *result_classes(self._destination).values()]
            opened = _open(self._destination, self._ae_title, classes, self._timeouts)
            if not isinstance(opened, _Open):
                return opened
            self._open = opened
        return self._store(self._open, delivery, file)

    def rest(self) -> None:
        """Releases the association."""
        if self._open:
            self._open.close()
            self._open = None

    def _store(self, opened: "_Open", delivery: Delivery, file: Path) -> Outcome:
        meta, _ = split_dataset(file)
        accepted = opened.syntaxes(delivery.sop_class)
        if not accepted:
            return opened.refusal(delivery.sop_class)
        if meta.TransferSyntaxUID in accepted:
            payload: Any = file
        elif meta.TransferSyntaxUID == EXPLICIT_LITTLE and IMPLICIT_LITTLE in accepted:
            payload = dcmread(file)
        else:
            return Parked("the result's transfer syntax is none that is proposed to the destination")
        began = time.monotonic()
        try:
            status = opened.association.send_c_store(payload).get("Status")
        except RuntimeError:
            # the peer ended the association between two results
            status = None
        if status is not None:
            return of_status(status)
        silent = time.monotonic() - began >= self._timeouts.response
        self.rest()
        if silent:
            return Postponed(f"no answer within {self._timeouts.response:.0f} s")
        return Postponed("the association ended before the answer")


class _Open:
    """An established association."""

    def __init__(self, association: Any, wire: "_Wire", classes: Iterable[str]) -> None:
        self.association = association
        self._wire = wire
        self._proposed = frozenset(classes)

    def serves(self, sop_class: str) -> bool:
        return bool(self.association.is_established) and sop_class in self._proposed

    def syntaxes(self, sop_class: str) -> set[str]:
        """The transfer syntaxes that the peer accepted for the class."""
        accepted = self.association.accepted_contexts
        return {str(c.transfer_syntax[0]) for c in accepted if c.abstract_syntax == sop_class}

    def refusal(self, sop_class: str) -> Parked:
        return _refusal(self.association, sop_class)

    def close(self) -> None:
        """Releases; a peer that does not answer that is aborted by the library after `Timeouts.associate`."""
        if self.association.is_established:
            self.association.release()
        elif self.association.is_alive():
            self.association.abort()
        self._wire.close()


class _Wire:
    """The socket under an association, seen by pynetdicom's events."""

    def __init__(self, seconds: float) -> None:
        self.connected = False
        self._seconds = seconds
        self._socket: socket.socket | None = None
        self.handlers = [
            (evt.EVT_ACSE_SENT, self._asked),
            (evt.EVT_CONN_OPEN, self._opened),
            (evt.EVT_DATA_SENT, self._moved),
            (evt.EVT_DATA_RECV, self._moved),
        ]

    def close(self) -> None:
        """The library leaves a socket open that never connected or whose peer hung up first."""
        if self._socket is not None:
            self._socket.close()

    def _asked(self, event: Any) -> None:
        """Its first call comes before the connection is made, in the thread that asks for the association."""
        if self._socket is None:
            self._socket = event.assoc.dul.socket.socket

    def _opened(self, _event: Any) -> None:
        self.connected = True
        if self._socket is not None:
            # a peer that stops reading would otherwise block the sending thread for good
            self._socket.settimeout(self._seconds)
            no_delay(self._socket)

    def _moved(self, _event: Any) -> None:
        """Nagle there and delayed acknowledgement here: 20 results/s to Orthanc instead of 168."""
        if self._socket is not None and self._socket.fileno() != -1:
            acknowledge_at_once(self._socket)


def _open(
    destination: DimseDestination, ae_title: str, classes: Iterable[str], timeouts: Timeouts
) -> _Open | Postponed | Parked:
    """Associates, with a context a class and transfer syntax, so that the peer's own preference decides nothing."""
    classes = list(dict.fromkeys(classes))
    ae = AE(ae_title=ae_title)
    ae.connection_timeout = timeouts.connect
    ae.acse_timeout = timeouts.associate
    ae.dimse_timeout = timeouts.response
    # between two results nothing is idle for long; the lane releases
    ae.network_timeout = timeouts.response
    wire = _Wire(timeouts.response)
    began = time.monotonic()
    try:
        association = ae.associate(
            destination.host,
            destination.port,
            contexts=[build_context(c, s) for c in classes for s in (EXPLICIT_LITTLE, IMPLICIT_LITTLE)],
            ae_title=destination.ae_title,
            evt_handlers=wire.handlers,
        )
    except (OSError, UnicodeError):
        return Postponed(f"the host name {destination.host} is not known")
    if association.is_established:
        return _Open(association, wire, classes)
    wire.close()
    where = f"{destination.host}:{destination.port}"
    if not wire.connected:
        if time.monotonic() - began >= timeouts.connect:
            return Postponed(f"no connection to {where} within {timeouts.connect:.0f} s")
        return Postponed(f"no connection to {where}: refused or unreachable")
    if association.is_rejected:
        answer = association.acceptor.primitive
        lasting = "permanent" if answer.result == 1 else "transient"
        return Postponed(f"association rejected ({lasting}): {answer.reason_str}")
    if association.rejected_contexts:
        return _refusal(association, classes[0])
    if time.monotonic() - began >= timeouts.associate:
        return Postponed(f"{where} did not answer the association request in {timeouts.associate:.0f} s")
    return Postponed(f"{where} ended the connection instead of accepting an association")


def _refusal(association: Any, sop_class: str) -> Parked:
    results = [c.result for c in association.rejected_contexts if c.abstract_syntax == sop_class]
    why = _REFUSALS.get(results[0] if results else 2, "no reason given")
    return Parked(f"presentation context refused: {UID(sop_class).name} ({why})")
