"""Delivery by C-STORE: Hilum as the requestor of an association (PS3.4 Annex B, PS3.7 9.1.1, PS3.8).

An association stays open while there is work and is released when there is none: an idle one blocks a thread of
Orthanc's (with four of its four threads held, 1.6 images/s of 116 are left). A result's file goes out as its bytes
are, without decoding; only for a peer that refuses its transfer syntax is it encoded anew, uncompressed to
uncompressed.

Libraries' error texts and the peer's Error Comment may quote a patient: reasons here are our own words.
"""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from node import certificates
from node.deliver.outcome import Outcome, Parked, Postponed, of_status
from node.deliver.part10 import read_meta
from node.settings import DimseDestination
from node.wire.connection import Broken, Ended, NoAnswer, NoAssociation
from node.wire.contexts import EXPLICIT_LITTLE, IMPLICIT_LITTLE, TRANSFER_SYNTAXES, VERIFICATION
from node.wire.kinds import class_of
from node.wire.requestor import USUAL, Requestor, Timeouts, associate
from storage.outbox import Delivery

__all__ = ["DimseSender", "EchoResult", "Timeouts", "echo", "result_classes"]

# what one can be made of the other without a look at the pixels
_UNCOMPRESSED = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)

# PS3.8 9.3.3.2: the answer to a proposed presentation context
_REFUSALS = {
    1: "user rejection",
    2: "no reason given",
    3: "SOP class not supported",
    4: "transfer syntax not supported",
}


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


def echo(destination: DimseDestination, ae_title: str, timeouts: Timeouts = USUAL) -> EchoResult:
    """C-ECHOs, proposing the result classes beside Verification. Never raises."""
    began = time.monotonic()
    wanted = result_classes(destination)
    opened = _open(destination, ae_title, _each([VERIFICATION, *wanted.values()], _UNCOMPRESSED), timeouts)
    if not isinstance(opened, Requestor):
        return EchoResult(False, opened.reason, time.monotonic() - began)
    accepts = {kind: bool(opened.syntaxes(sop_class)) for kind, sop_class in wanted.items()}
    reason = _echoed(opened)
    opened.release()
    return EchoResult(not reason, reason, time.monotonic() - began, accepts)


def _echoed(association: Requestor) -> str:
    """Why C-ECHO does not hold; empty where it does."""
    contexts = association.syntaxes(VERIFICATION)
    if not contexts:
        return "the destination does not take C-ECHO"
    try:
        status = association.echo(min(contexts.values()))
    except NoAssociation:
        return "no answer to C-ECHO"
    return "" if status == 0 else f"C-ECHO: {status:04X}"


class DimseSender:
    """One destination that is a DICOM peer, and the association to it while there is work."""

    def __init__(self, destination: DimseDestination, ae_title: str, timeouts: Timeouts = USUAL) -> None:
        self._destination = destination
        self._ae_title = ae_title
        self._timeouts = timeouts
        self._association: Requestor | None = None
        self._proposed: frozenset[tuple[str, str]] = frozenset()

    def send(self, delivery: Delivery, file: Path) -> Outcome:
        """One C-STORE; opens the association where none is open or the open one lacks class or transfer syntax.

        Raises what reading a damaged file raises.
        """
        with file.open("rb") as opened:
            own, start = read_meta(opened.fileno())
            trouble = self._associate(delivery.sop_class, own)
            if trouble:
                return trouble
            assert self._association
            contexts = self._association.syntaxes(delivery.sop_class)
            if own in contexts:
                return self._store(delivery, contexts[own], opened, start)
            other = next((s for s in _UNCOMPRESSED if s in contexts), "")
            if not other:
                return _refused(self._association, delivery.sop_class)
        if own not in _UNCOMPRESSED:
            return Parked(f"the destination does not take {_syntax_name(own)}, and it is not converted")
        with _encoded_anew(file, other) as made:
            _, start = read_meta(made.fileno())
            return self._store(delivery, contexts[other], made, start)

    def rest(self) -> None:
        """Releases the association."""
        if self._association:
            self._association.release()
            self._association = None

    def _associate(self, sop_class: str, syntax: str) -> Postponed | None:
        """Sees to an open association that proposes this class in this transfer syntax."""
        if self._association and self._association.is_open() and (sop_class, syntax) in self._proposed:
            return None
        self.rest()
        classes = [sop_class, *result_classes(self._destination).values()]
        proposals = _each(classes, (syntax, *_UNCOMPRESSED))
        opened = _open(self._destination, self._ae_title, proposals, self._timeouts)
        if not isinstance(opened, Requestor):
            return opened
        self._association, self._proposed = opened, frozenset(proposals)
        return None

    def _store(self, delivery: Delivery, context: int, file: BinaryIO, start: int) -> Outcome:
        assert self._association
        try:
            status = self._association.store(
                context, delivery.sop_class, delivery.sop_instance, file.fileno(), start
            )
        except NoAnswer:
            return Postponed(f"no answer within {self._timeouts.response:.0f} s")
        except Broken as e:
            return Postponed(f"the destination does not keep to the protocol: {e}")
        except Ended:
            return Postponed("the association ended before the answer")
        return of_status(status)


def _each(classes: Iterable[str], syntaxes: Iterable[str]) -> list[tuple[str, str]]:
    """A context a class and transfer syntax, so that the peer's own preference decides nothing."""
    return [(c, s) for c in dict.fromkeys(classes) for s in dict.fromkeys(syntaxes)]


def _open(
    destination: DimseDestination, ae_title: str, proposals: list[tuple[str, str]], timeouts: Timeouts
) -> Requestor | Postponed:
    where = f"{destination.host}:{destination.port}"
    try:
        return associate(
            destination.host,
            destination.port,
            destination.ae_title,
            ae_title,
            [(sop_class, (syntax,)) for sop_class, syntax in proposals],
            timeouts,
            files=certificates.of(destination),
        )
    except NoAnswer:
        return Postponed(f"{where} did not answer the association request in {timeouts.associate:.0f} s")
    except Ended:
        return Postponed(f"{where} ended the connection instead of accepting an association")
    except NoAssociation as e:
        return Postponed(str(e))


def _refused(association: Requestor, sop_class: str) -> Parked:
    from pydicom.uid import UID

    why = _REFUSALS.get(association.refusal(sop_class), "no reason given")
    return Parked(f"presentation context refused: {UID(sop_class).name} ({why})")


def _syntax_name(syntax: str) -> str:
    return TRANSFER_SYNTAXES.get(syntax, "the result's transfer syntax")


def _encoded_anew(file: Path, syntax: str) -> BinaryIO:
    """The file in another uncompressed transfer syntax, in memory."""
    from pydicom import dcmread, dcmwrite
    from pydicom.uid import UID

    dataset = dcmread(file)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    made = os.fdopen(os.memfd_create("result"), "w+b")
    dcmwrite(made, dataset)
    made.flush()
    return made
