"""What is done with one object: hash and walk it while it goes into the spool, commit (T1), answer.

    sender.begin(announced) -> Incoming    .write(fragment) …    .finish() -> Answer

Knows no socket and no engine. Nothing here raises towards the network: whatever goes wrong is an answer, an audit
record and nothing left on disk. docs/pacs.md has the table of answers.
"""

import hashlib
import struct
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from node import log
from node.errors import CannotUnderstand, ClassNotSupported, NotAsAnnounced, OutOfResources, Refused
from node.receive.commit import Committer, Waiting, conflict_reason
from node.receive.header import Header, uid
from node.receive.walk import Limits, Walker
from node.settings import Receive
from node.wire import contexts
from node.wire.command import MAX_COMMENT
from storage.audit import About, Actor, Entry, Patient
from storage.errors import StorageError
from storage.objects import Arrival, Verdict
from storage.spool import Incoming as SpoolIncoming
from storage.store import Store

SUCCESS = 0x0000
# how often the disk's floor is looked at while one object arrives
FLOOR_STEP = 64 * 2**20
BELOW_FLOOR = "the disk is below its floor (min_free_bytes)"


class FloorReached(OutOfResources):
    """Too little free disk: counted, and told once an association."""


class Conflict(CannotUnderstand):
    """The UID is taken; the record was written in the transaction that found it."""


@dataclass(frozen=True)
class Announced:
    """What the command and its presentation context say of the object to come; UIDs as they came."""

    sop_class: bytes
    sop_instance: bytes
    context_class: str
    transfer_syntax: str


@dataclass(frozen=True)
class Answer:
    """Status and Error Comment (at most 64 characters) of a C-STORE-RSP."""

    status: int
    comment: str = ""


class Receiver:
    """Takes objects into one store.

    `model` is the hash under which jobs are queued. `stored_only(sop_class, presentation_intent)` gives the reason
    why an object gets no job, or None. `on_kept` is called after each commit that queued a job. `reports_to`: see
    `node.receive.commitment`.
    """

    def __init__(
        self,
        store: Store,
        settings: Receive,
        model: str,
        stored_only: Callable[[str, str], str | None],
        on_kept: Callable[[], None] = lambda: None,
        reports_to: Mapping[str, tuple[str, int]] = MappingProxyType({}),
    ) -> None:
        self.store = store
        self.settings = settings
        self.reports_to = dict(reports_to)
        self._committer = Committer(store, settings.on_conflict, model, stored_only, on_kept)

    def keep(self, sender: "Sender", arrival: Arrival, header: Header, file: SpoolIncoming) -> None:
        """T1: the file lasts, then object, job and audit in one transaction. Raises Refused, StorageError.

        The same object again needs neither a file nor a job.
        """
        file.sync()
        waiting = Waiting(sender, arrival, header.presentation_intent, file)
        verdict = self._committer.keep(waiting)
        if not waiting.is_kept and verdict is not Verdict.REPEATED:
            raise Conflict(conflict_reason(verdict))


class Sender:
    """One peer's association as accepting sees it: who sends, and what is told once of all it sent."""

    def __init__(self, receiver: Receiver, actor: Actor, opening: Mapping[str, Any] | None = None) -> None:
        self.actor = actor
        self._receiver = receiver
        # association.accepted rides along with the first transaction
        self._opening = opening
        self._below_floor = 0
        self._unfinished: set[Incoming] = set()

    def begin(self, announced: Announced) -> "Incoming":
        """One object begins to arrive."""
        incoming = Incoming(self._receiver, self, announced)
        self._unfinished.add(incoming)
        return incoming

    def finished(self, incoming: "Incoming") -> None:
        self._unfinished.discard(incoming)

    def opening(self) -> list[Entry]:
        """The record association.accepted, where no transaction has written it yet."""
        if self._opening is None:
            return []
        return [Entry("association.accepted", actor=self.actor, detail=self._opening)]

    def told(self) -> None:
        """A transaction that held `opening` was committed."""
        self._opening = None

    def below_floor(self) -> None:
        self._below_floor += 1

    def end(self, event: str = "", detail: Mapping[str, Any] | None = None) -> None:
        """Nothing is left of what was arriving; records what was not recorded yet, and `event`."""
        for incoming in list(self._unfinished):
            incoming.close()
        entries = []
        if self._below_floor:
            told = {"reason": BELOW_FLOOR, "status": "A700", "objects": self._below_floor}
            entries.append(Entry("object.refused", actor=self.actor, outcome="failure", detail=told))
        if event:
            entries.append(Entry(event, actor=self.actor, outcome="failure", detail=detail or {}))
        try:
            self._record(entries)
        except StorageError as e:
            log.get().error("an association is not in the audit log", reason=str(e))
        else:
            self._below_floor = 0

    def refused(self, sop_instance: str, error: Refused) -> None:
        """Records object.refused."""
        detail = {"reason": error.reason, "status": f"{error.status:04X}"}
        about = About(sop=sop_instance)
        try:
            self._record([Entry("object.refused", about, self.actor, "failure", detail)])
        except StorageError as e:
            log.get().error("a refusal is not in the audit log", reason=str(e), refused=error.reason)

    def _record(self, entries: list[Entry]) -> None:
        entries = self.opening() + entries
        if not entries:
            return
        with self._receiver.store.database.write() as tx:
            self._receiver.store.audit.record_all(tx, entries)
        self.told()


class Incoming:
    """One object on its way in. After a refusal what still comes is dropped. `write` and `finish` don't raise."""

    def __init__(self, receiver: Receiver, sender: Sender, announced: Announced) -> None:
        self._receiver = receiver
        self._sender = sender
        self._announced = announced
        self._limits = receiver.settings
        self._began = time.monotonic()
        self._walker = Walker(announced.transfer_syntax, Limits(receiver.settings.max_inflated_bytes))
        self._digest = hashlib.sha256()
        self._size = 0
        self._next_look = 0
        self._sop_instance = ""
        self._refusal: Refused | None = None
        self._files = ExitStack()
        # the association may end in another thread than the one that brings the bytes
        self._lock = threading.RLock()
        self._closed = False
        self._attempt(self._open)

    def write(self, *fragments: bytes | memoryview) -> None:
        """The next bytes of the data set, in the transfer syntax's own encoding."""
        with self._lock:
            if self._refusal is None and not self._closed:
                self._attempt(lambda: self._take(fragments))

    def finish(self) -> Answer:
        """All of it has come. When this returns 0000 the object survives a power cut."""
        with self._lock:
            if self._refusal is None and not self._closed:
                self._attempt(self._commit)
            self.close()
        self._sender.finished(self)
        match self._refusal:
            case None:
                return Answer(SUCCESS)
            case FloorReached():
                self._sender.below_floor()
            case Conflict():
                pass
            case refusal:
                self._sender.refused(self._sop_instance, refusal)
        return Answer(self._refusal.status, self._refusal.reason[:MAX_COMMENT])

    def close(self) -> None:
        """Leaves nothing on disk unless the object was kept. Harmless when done twice."""
        with self._lock:
            self._closed = True
            self._files.close()

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Refused as e:
            self._refusal = e
        except StorageError as e:
            self._refusal = OutOfResources(str(e))
        except OSError as e:
            self._refusal = OutOfResources(e.strerror or "I/O error")
        except Exception as e:
            # a fault of ours must not cost the sender its image: it sends again
            place = traceback.extract_tb(e.__traceback__)[-1]
            log.get().error("receiving failed", kind=type(e).__name__, at=f"{place.filename}:{place.lineno}")
            self._refusal = OutOfResources("internal error, see the node's log")
        if self._refusal is not None:
            self.close()

    def _open(self) -> None:
        said = self._announced
        self._sop_instance = uid(said.sop_instance, "SOP Instance UID")
        sop_class = uid(said.sop_class, "SOP Class UID")
        if sop_class != said.context_class or sop_class == contexts.VERIFICATION:
            raise ClassNotSupported("no storage class, or not the class of its context")
        self._look_at_floor()
        self._file = self._files.enter_context(self._receiver.store.spool.incoming("objects"))
        # goes out in one call with the first bytes of the data set
        self._head = part10_head(sop_class, self._sop_instance, said.transfer_syntax, self._sender.actor.name)

    def _take(self, fragments: Sequence[bytes | memoryview]) -> None:
        for fragment in fragments:
            self._size += len(fragment)
            if self._size > self._limits.max_object_bytes:
                raise CannotUnderstand("the object is larger than max_object_bytes")
            self._walker.feed(fragment)
            if self._walker.damage is not None:
                raise self._walker.damage
            self._digest.update(fragment)
        if self._size >= self._next_look:
            self._look_at_floor()
        self._file.write_all([self._head, *fragments] if self._head else fragments)
        self._head = b""

    def _look_at_floor(self) -> None:
        self._next_look = self._size + FLOOR_STEP
        if self._receiver.store.spool.free_bytes() < self._limits.min_free_bytes:
            raise FloorReached(BELOW_FLOOR)

    def _commit(self) -> None:
        header = self._walker.finish()
        if header.sop_class != self._announced.context_class:
            raise NotAsAnnounced("command and data set name different SOP classes")
        if header.sop_instance != self._sop_instance:
            raise NotAsAnnounced("command and data set name different SOP instances")
        content_hash = f"sha256:{self._digest.hexdigest()}"
        arrival = arrived(
            header, self._announced.transfer_syntax, self._size, content_hash, self._sender.actor
        )
        arrival = replace(arrival, seconds=time.monotonic() - self._began)
        self._receiver.keep(self._sender, arrival, header, self._file)


def arrived(
    header: Header, transfer_syntax: str, size: int, content_hash: str, sender: Actor, is_ours: bool = False
) -> Arrival:
    """A walked object as the store judges it. `is_ours`: its UID is known as that of a result of this node."""
    return Arrival(
        sop_class=header.sop_class,
        sop_instance=header.sop_instance,
        series=header.series,
        study=header.study,
        patient=Patient(header.patient_id, header.patient_name, header.accession),
        transfer_syntax=transfer_syntax,
        size=size,
        content_hash=content_hash,
        sender=sender,
        own=is_ours or bool(header.own_mark),
    )


def part10_head(sop_class: str, sop_instance: str, transfer_syntax: str, source: str) -> bytes:
    """Preamble and meta information of a DICOM file (PS3.10 7.1)."""
    elements = b"".join(
        (
            struct.pack("<HH2sHL", 2, 0x0001, b"OB", 0, 2) + b"\0\1",
            _meta(0x0002, b"UI", sop_class),
            _meta(0x0003, b"UI", sop_instance),
            _meta(0x0010, b"UI", transfer_syntax),
            _meta(0x0012, b"UI", contexts.IMPLEMENTATION_CLASS),
            _meta(0x0013, b"SH", contexts.IMPLEMENTATION_VERSION),
            _meta(0x0016, b"AE", source),
        )
    )
    return bytes(128) + b"DICM" + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(elements)) + elements


def _meta(element: int, vr: bytes, value: str) -> bytes:
    raw = value.encode("ascii", "replace")
    raw += (b"\0" if vr == b"UI" else b" ") * (len(raw) % 2)
    return struct.pack("<HH2sH", 2, element, vr, len(raw)) + raw
