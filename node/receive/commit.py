"""T1 for all objects that have arrived together: one folder sync, one transaction, then each its answer.

Whoever comes first commits for all who wait by then; who comes while that goes on waits, and one of them commits for
the rest next. So a lone sender waits for nobody and for no other thread, and many share the disk's work.

    each sender's thread   write ─► fdatasync ─┐
    one of them                                └─► fsync(folder) ─► rename ─► BEGIN … COMMIT ─► Success to each

The renaming itself is not waited for: a file with a row is found under its temporary name after a power cut
(`storage.spool`).
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from sqlalchemy import Connection

from model.stored_only import OWN_RESULT
from storage.audit import Entry
from storage.errors import StorageError, Unavailable
from storage.jobs import NewJob
from storage.objects import Arrival, Kept, Verdict
from storage.spool import Incoming
from storage.store import Store


class Teller(Protocol):
    """Who sent it: what is still to be told of its association rides along."""

    def opening(self) -> list[Entry]: ...

    def told(self) -> None: ...


@dataclass
class Waiting:
    """One object whose bytes are synced, waiting for the rest. `verdict` and `is_kept` say what became of it."""

    sender: Teller
    arrival: Arrival
    presentation_intent: str
    file: Incoming
    verdict: Verdict = Verdict.NEW
    is_kept: bool = False
    failure: Exception | None = None
    done: bool = False
    woken: threading.Lock = field(default_factory=threading.Lock)


class Committer:
    """Commits for many threads at once. `stored_only` and `on_kept`: see `node.receive.accept.Receiver`."""

    def __init__(
        self,
        store: Store,
        on_conflict: str,
        model: str,
        stored_only: Callable[[str, str], str | None],
        on_kept: Callable[[], None],
    ) -> None:
        self._store = store
        self._on_conflict = on_conflict
        self._model = model
        self._stored_only = stored_only
        self._on_kept = on_kept
        self._mutex = threading.Lock()
        self._waiting: list[Waiting] = []
        self._busy = False

    def keep(self, one: Waiting) -> Verdict:
        """What it is to what is kept already, once that lasts. Whatever it raises, nothing of it is left then."""
        one.woken.acquire()
        with self._mutex:
            self._waiting.append(one)
            leads = not self._busy
            self._busy = True
        if not leads:
            one.woken.acquire()
        if not one.done:
            self._lead()
        assert one.done
        if isinstance(one.failure, StorageError):
            # one failure may be the answer to several: each raises its own
            raise Unavailable(str(one.failure)) from one.failure
        if one.failure is not None:
            raise one.failure
        return one.verdict

    def _lead(self) -> None:
        """Commits for everybody who waits by now, the caller among them; then somebody else's turn begins."""
        with self._mutex:
            group = _one_a_uid(self._waiting)
            taken = {id(one) for one in group}
            self._waiting = [one for one in self._waiting if id(one) not in taken]
        try:
            self._commit(group)
        finally:
            for one in group:
                if not one.done:
                    one.failure, one.done = Unavailable("internal error, see the node's log"), True
            with self._mutex:
                following = self._waiting[0] if self._waiting else None
                self._busy = following is not None
            for one in group:
                one.woken.release()
            if following is not None:
                following.woken.release()

    def _commit(self, group: Sequence[Waiting]) -> None:
        try:
            self._settle(self._publish(group))
        finally:
            for one in group:
                if not one.is_kept:
                    one.file.path.unlink(missing_ok=True)
                one.done = True

    def _settle(self, published: Sequence[Waiting]) -> None:
        """One transaction for all of them; where that meets a fault of ours, one for each."""
        if not published:
            return
        try:
            with self._store.database.write_prepared() as tx:
                queued = self._put_down(tx, published)
        except Exception as e:
            for one in published:
                one.failure, one.is_kept = e, False
            if len(published) > 1 and not isinstance(e, StorageError):
                for one in published:
                    one.failure = None
                    self._settle([one])
            return
        for one in published:
            one.sender.told()
        if queued:
            self._on_kept()

    def _publish(self, group: Sequence[Waiting]) -> list[Waiting]:
        """Those whose files last now."""
        folders: dict[object, StorageError | None] = {}
        published = []
        for one in group:
            try:
                if one.file.folder not in folders:
                    folders[one.file.folder] = None
                    one.file.sync_folder()
            except StorageError as e:
                folders[one.file.folder] = e
            try:
                if (failed := folders[one.file.folder]) is not None:
                    raise failed
                one.file.publish()
                published.append(one)
            except StorageError as e:
                one.failure = e
        return published

    def _put_down(self, tx: Connection, group: Sequence[Waiting]) -> int:
        """Rows and records of the group; how many jobs were queued."""
        objects, audit = self._store.objects, self._store.audit
        entries = [entry for one in _one_a_sender(group) for entry in one.sender.opening()]
        instances = [one.arrival.sop_instance for one in group]
        ours = objects.own_among(tx, instances)
        wanted = []
        for one, verdict in zip(group, objects.judge_all(tx, [one.arrival for one in group]), strict=True):
            one.verdict = verdict
            one.is_kept = self._is_wanted(verdict)
            if one.arrival.sop_instance in ours:
                one.arrival = replace(one.arrival, own=True)
            if one.is_kept:
                wanted.append(one)
            elif verdict is Verdict.REPEATED:
                objects.repeated(tx, one.arrival)
            else:
                objects.conflict(tx, one.arrival, conflict_reason(verdict))
        queued = self._put_down_wanted(tx, wanted, entries) if wanted else 0
        audit.record_all(tx, entries)
        return queued

    def _put_down_wanted(self, tx: Connection, wanted: Sequence[Waiting], entries: list[Entry]) -> int:
        kept = [Kept(one.arrival, one.file.name, one.verdict is Verdict.CHANGED) for one in wanted]
        known = self._store.objects.keep_all(tx, kept, entries)
        new = [
            NewJob(row.id, row.about, OWN_RESULT if one.arrival.own else "")
            for one, row in zip(wanted, known, strict=True)
            if self._stored_only(one.arrival.sop_class, one.presentation_intent) is None
        ]
        self._store.jobs.queue_all(tx, new, self._model, entries)
        return sum(not job.reason for job in new)

    def _is_wanted(self, verdict: Verdict) -> bool:
        if verdict is Verdict.CHANGED:
            return self._on_conflict == "analyze"
        return verdict is Verdict.NEW


def conflict_reason(verdict: Verdict) -> str:
    if verdict is Verdict.FOREIGN:
        return "this UID belongs to another patient, study or series"
    return "other content under a known UID (see receive.on_conflict)"


def _one_a_uid(waiting: Sequence[Waiting]) -> list[Waiting]:
    """The first of each SOP instance: a second one is judged by what the first has left."""
    first: dict[str, Waiting] = {}
    for one in waiting:
        first.setdefault(one.arrival.sop_instance, one)
    return list(first.values())


def _one_a_sender(group: Sequence[Waiting]) -> list[Waiting]:
    return list({id(one.sender): one for one in group}.values())
