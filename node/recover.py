"""What a stopped or killed node left behind, put right; and a lost database rebuilt from the spool.

At every start: what was running or being sent goes back to its queue and counts nothing; half-written files go;
files under objects/ without a row (a crash between rename and commit) are adopted, files under results/ without a
row are deleted.

`hilum check --repair`: the same, and where the database is gone it is made anew from the spool. The audit log is
never rebuilt: its loss is its first record.
"""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from model.stored_only import OWN_RESULT, stored_only
from node.anchoring import anchors_of
from node.errors import BadEnvironment, Refused
from node.receive.accept import arrived
from node.receive.part10 import walk_file
from node.receive.walk import Limits
from node.settings import DimseDestination, Settings
from node.wire import contexts
from storage.audit import Actor
from storage.audit.anchors import newest
from storage.errors import Unavailable, WrongState
from storage.objects import Arrival, Verdict
from storage.results import Made
from storage.spool import TEMPORARY
from storage.store import DATABASE, Store

if TYPE_CHECKING:
    from node.report.adopt import Found


@dataclass
class Recovered:
    """What was put right, for the audit record and for a person. Files by their names in the spool."""

    jobs: int = 0
    studies: int = 0
    deliveries: int = 0
    # open with destinations that are no longer asked to commit
    commitments_withdrawn: int = 0
    # files that a power cut had left under their temporary names
    renamed: int = 0
    unfinished_files: int = 0
    adopted: list[str] = field(default_factory=list)
    queued: int = 0
    unreadable: list[str] = field(default_factory=list)
    results_deleted: list[str] = field(default_factory=list)
    results_parked: list[str] = field(default_factory=list)
    files_missing: list[str] = field(default_factory=list)
    audit_log_lost: bool = False

    @property
    def anything(self) -> bool:
        return any(vars(self).values())

    def detail(self) -> dict[str, object]:
        """For the audit record: counts, and the names of files that need a person."""
        return {
            key: len(value) if key in {"adopted", "results_deleted", "results_parked"} else value
            for key, value in vars(self).items()
            if value
        }


def after_stop(store: Store, settings: Settings, model: str) -> Recovered:
    """At a start, before any other process runs. Raises Unavailable."""
    found = Recovered(renamed=_renamed(store), unfinished_files=store.spool.sweep())
    _put_back(store, settings, found)
    _adopt(store, settings, model, found, queue=True)
    with store.database.read() as tx:
        known = store.results.files(tx)
    for name in store.spool.names("results"):
        if name not in known:
            store.spool.remove(name)
            found.results_deleted.append(name)
    if found.anything:
        with store.database.write() as tx:
            store.audit.record(tx, "node.recovered", detail=found.detail())
    return found


def _renamed(store: Store) -> int:
    """Files with a row whose renaming a power cut took back, given their names; how many."""
    with store.database.read() as tx:
        listed = store.objects.files(tx) | store.results.files(tx)
    return len(store.spool.restore(listed))


def _renamed_unlisted(store: Store, settings: Settings) -> int:
    """The same where no rows are left to tell: files that are whole by themselves; how many."""
    limits = Limits(settings.receive.max_inflated_bytes)
    classes = {*contexts.standard_storage(), *settings.receive.extra_classes}
    whole = []
    for name in store.spool.unfinished("objects"):
        with suppress(Refused, OSError):
            walk_file(store.spool.path(name), limits, classes)
            whole.append(name.removesuffix(TEMPORARY) + ".dcm")
    return len(store.spool.restore(whole))


def _put_back(store: Store, settings: Settings, found: Recovered) -> None:
    """What was under way waits again; what is no longer asked of a destination is withdrawn."""
    committing = {d.name for d in settings.destinations if isinstance(d, DimseDestination) and d.commitment}
    with store.database.write() as tx:
        found.jobs = store.jobs.recover(tx)
        found.studies = store.studies.recover(tx)
        found.deliveries = store.outbox.recover(tx)
        found.commitments_withdrawn = store.commitments.withdraw(tx, committing)


def refuse_lost_database(data_dir: Path) -> None:
    """A spool without its database must not be read anew by accident: that would make second results.

    Raises BadEnvironment.
    """
    if (data_dir / DATABASE).exists():
        return
    if next(iter((data_dir / "objects").glob("*/*/*.dcm")), None) is not None:
        raise BadEnvironment(
            f"{data_dir / DATABASE} is gone but the spool holds images: put it back from a backup, "
            "or rebuild it with `hilum check --repair`"
        )


def repair(settings: Settings, model: str, *, requeue: bool = False) -> Recovered:
    """Takes in files without rows and names rows without files; the caller holds the data folder's lock.

    Rebuilt objects are queued only with `requeue`, those that have results not even then; results come back with
    their deliveries parked, since nobody knows whether they arrived. Raises StorageError.
    """
    data_dir = settings.node.data_dir
    lost = not (data_dir / DATABASE).exists()
    store = Store.create(data_dir, keeps_names=settings.audit.keeps_names)
    try:
        renamed = _renamed_unlisted(store, settings) if lost else _renamed(store)
        found = Recovered(audit_log_lost=lost, renamed=renamed, unfinished_files=store.spool.sweep())
        if lost:
            with store.database.write() as tx:
                detail = {"audit_log": "lost", "last_anchor": _last_anchor(settings)}
                store.audit.record(tx, "node.recovered", outcome="failure", detail=detail)
        _put_back(store, settings, found)
        lost_results = _lost_results(store, found)
        # by UID: another revision of an image that has a result was read with it, or was the same picture
        read = {instance for result in lost_results.values() for instance in result.instances}
        _adopt(store, settings, model, found, queue=requeue, read=read)
        _adopt_results(store, settings, found, lost_results)
        with store.database.read() as tx:
            listed = store.objects.files(tx) | store.results.files(tx)
        found.files_missing = sorted(name for name in listed if not store.spool.path(name).exists())
        with store.database.write() as tx:
            store.audit.record(tx, "node.recovered", detail={"repair": True, **found.detail()})
        return found
    finally:
        store.close()


def _last_anchor(settings: Settings) -> dict[str, object] | None:
    """What is still known of a lost log: its last seal."""
    with suppress(Unavailable):
        if last := newest(anchors_of(settings).folder):
            return {"block": last.block, "time": last.time, "last_id": last.last_id, "hash": last.hash}
    return None


def _adopt(
    store: Store,
    settings: Settings,
    model: str,
    found: Recovered,
    *,
    queue: bool,
    read: Collection[str] = (),
) -> None:
    """Takes in files under objects/ without rows; `queue`: to be read, but for the SOP instances in `read`."""
    with store.database.read() as tx:
        known = store.objects.files(tx)
    limits = Limits(settings.receive.max_inflated_bytes)
    classes = {*contexts.standard_storage(), *settings.receive.extra_classes}
    # a crash between rename and commit may leave what would have been refused
    wanted = {Verdict.NEW, Verdict.CHANGED} if settings.receive.on_conflict == "analyze" else {Verdict.NEW}
    # as they came: of two revisions the older is the first again
    for name in sorted(store.spool.names("objects"), key=lambda n: store.spool.path(n).stat().st_mtime_ns):
        if name in known:
            continue
        try:
            walk = walk_file(store.spool.path(name), limits, classes)
        except (Refused, OSError):
            found.unreadable.append(name)
            continue
        with store.database.write() as tx:
            is_ours = store.objects.is_own(tx, walk.sop_instance)
            arrival = arrived(
                walk.header, walk.transfer_syntax, walk.size, walk.content_hash, Actor(), is_ours
            )
            surplus = store.objects.judge(tx, arrival) not in wanted
            if not surplus:
                object_id = store.objects.keep(tx, arrival, name)
                if stored_only(walk.sop_class, walk.header.presentation_intent) is None:
                    state, reason = _state(arrival, queue and arrival.sop_instance not in read)
                    store.jobs.queue(tx, object_id, model, state=state, reason=reason)
                    found.queued += state == "queued"
        if surplus:
            store.spool.remove(name)
        else:
            found.adopted.append(name)


def _state(arrival: Arrival, queue: bool) -> tuple[str, str]:
    if arrival.own:
        return "skipped", OWN_RESULT
    if queue:
        return "queued", ""
    return "parked", "taken in from the spool by a repair; `hilum jobs retry` reads it again"


def _lost_results(store: Store, found: Recovered) -> dict[str, "Found"]:
    """Files under results/ without rows, by their names; what is none of ours is named in `found`, texts go."""
    # slow to import, and only a repair needs it
    from node.report.adopt import recognize

    with store.database.read() as tx:
        known = store.results.files(tx)
    lost = {}
    for name in store.spool.names("results"):
        if name in known:
            continue
        if not name.endswith(".dcm"):
            # a text does not say whose it was as a DICOM object does; reading the image again makes the same one
            store.spool.remove(name)
            found.results_deleted.append(name)
            continue
        result = recognize(store.spool.path(name))
        if result is None:
            found.unreadable.append(name)
        else:
            lost[name] = result
    return lost


def _adopt_results(store: Store, settings: Settings, found: Recovered, lost: dict[str, "Found"]) -> None:
    """Back in the outbox, deliveries parked. Without a source object they stay on disk."""
    # slow to import, and only a repair needs it
    from node.analyze.pipeline import NOT_ANALYZED, wanted_results

    wanted = wanted_results(settings)
    of_studies = {result.series for result in lost.values() if result.of_study}
    for name, result in lost.items():
        made = Made(
            writer=result.writer,
            variant=result.variant,
            sop_class=result.sop_class,
            sop_instance=result.sop_instance,
            content_hash=result.content_hash,
            file=name,
            destinations=wanted.get((result.writer, result.variant.partition("#")[0]), ()),
        )
        try:
            with store.database.write() as tx:
                store.results.adopt(
                    tx,
                    made,
                    result.study,
                    result.sources,
                    result.revision,
                    of_study=result.series in of_studies,
                    state="skipped" if result.writer == NOT_ANALYZED else "done",
                )
        except WrongState:
            found.unreadable.append(name)
            continue
        found.results_parked.append(name)
