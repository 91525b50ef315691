"""What expires and when: months of the audit log let go; a preview of all that the next run removes.

A month goes once an anchor holds it and the audit repository, where there is one, has it; else it waits, and why is
said. Images and results are removed by `node.housekeep`, by the same conditions that are counted here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from node import show
from node.anchoring import anchors_of
from node.settings import Settings
from storage.audit import agreement, anchors, archive, expire, forwarded
from storage.audit.archive import Archived, Month
from storage.audit.seal import seal_all
from storage.clock import moment, stamp
from storage.database import driver
from storage.errors import StorageError, Unavailable
from storage.objects import Over
from storage.store import DATABASE, Store

WHY = {
    "parked": "parked: a person must decide",
    "unread": "not read or reported yet",
    "undelivered": "undelivered",
    "uncommitted": "awaiting commitment",
}
"""Why something stays though its time is over."""


NONE = Over(0, 0, "")


@dataclass(frozen=True)
class Run:
    """What became of the log: the months that were let go, and why the next one waits (empty: none does)."""

    months: tuple[tuple[Month, Archived], ...] = ()
    waits: str = ""


@dataclass(frozen=True)
class Files:
    """Images or results whose time is over: what goes, and what stays, by why. `days` 0: they are kept for ever."""

    days: int
    go: Over = NONE
    stay: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Log:
    """The audit log: the months that go, why the first of them waits, and the month that is next, with its day."""

    days: int
    months: tuple[Month, ...] = ()
    waits: str = ""
    next: tuple[str, str] | None = None


@dataclass(frozen=True)
class Preview:
    images: Files
    results: Files
    log: Log


def folder(settings: Settings) -> Path:
    """Where expired months lie."""
    return settings.node.data_dir / archive.FOLDER


def expire_log(store: Store, settings: Settings) -> Run:
    """Lets go the months whose time is over, and finishes what was cut short. Raises StorageError."""
    expire.finish(store.database)
    done: list[tuple[Month, Archived]] = []
    for month in _over(store, settings.retention.audit_days):
        if why := _waits(store, settings, month):
            return Run(tuple(done), why)
        archived = archive.write(store.database, month, folder(settings), store.spool.disk)
        expire.let_go(store.database, store.audit, store.clock, month, archived)
        expire.finish(store.database)
        done.append((month, archived))
    return Run(tuple(done))


def preview(store: Store, settings: Settings) -> Preview:
    """What a run would do now. Nothing is changed, but that what is committed is sealed."""
    times = settings.retention
    months = _over(store, times.audit_days)
    return Preview(
        _files(store, times.images_days, store.objects.over),
        _files(store, times.results_days, partial(store.results.over, size_of=store.spool.size)),
        Log(
            times.audit_days,
            tuple(months),
            _waits(store, settings, months[0]) if months else "",
            _next(store, times.audit_days),
        ),
    )


def expired_note(store: Store, since: str = "") -> str:
    """A line for whoever asks the log about a time of which records have expired; empty where none has."""
    with store.database.read() as tx:
        gone = expire.gone(tx)
    if not gone:
        return ""
    begins = _month_after(gone[-1].month)
    if since and since >= stamp(begins):
        return ""
    files = gone[0].export if len(gone) == 1 else f"{gone[0].export} to {gone[-1].export}"
    return f"records before {begins:%Y-%m} have expired; they are in {archive.FOLDER}/{files}"


def verify_archives(settings: Settings, files: Sequence[Path]) -> bool:
    """Checks expired months and prints a line for each; whether all are as the log let them go."""
    known = _let_go(settings)
    held = True
    for file in files:
        try:
            seal, records = archive.verify(file)
            held_here = known is None or (seal.block, seal.hash) in known
            says = f"{records} records up to block {seal.block}, as they were sealed"
            if known is None:
                says += "; there is no log here to compare them with"
            elif not held_here:
                says += "; but the log of this node never let them go"
            print(f"{file.name}: {says}")
        except StorageError as e:
            held_here = False
            print(f"{file.name}: {e}")
        held = held and held_here
    return held


def as_json(found: Preview) -> dict[str, Any]:
    log = found.log
    return {
        "images": _files_json(found.images),
        "results": _files_json(found.results),
        "audit": {
            "days": log.days,
            "months": [
                {"month": month.name, "first_id": month.first_id, "last_id": month.last_id}
                for month in log.months
            ],
            "waits": log.waits or None,
            "next_month": log.next[0] if log.next else None,
            "next_on": log.next[1] if log.next else None,
        },
    }


def describe(found: Preview, settings: Settings) -> None:
    """Prints it for a person."""
    zone = settings.report.zone
    rows = []
    for name, files in (("images", found.images), ("results", found.results)):
        oldest = show.when(moment(files.go.oldest), zone) if files.go.oldest else ""
        stay = ", ".join(f"{count} {WHY[why]}" for why, count in files.stay.items())
        rows.append((name, _kept_for(files.days), files.go.count, show.size(files.go.size), oldest, stay))
    show.table(("", "kept for", "go", "size", "oldest", "stay beyond their time"), rows)
    log = found.log
    print(f"audit log: kept for {_kept_for(log.days)}")
    for month in log.months:
        print(f"  {month.name} goes: records {month.first_id} to {month.last_id}, into {archive.FOLDER}")
    if log.waits:
        print(f"  but it waits: {log.waits}")
    if log.next:
        print(f"  {log.next[0]} goes on {log.next[1]}")
    print("The next run: within an hour where the node runs, else at its start.")


def _let_go(settings: Settings) -> set[tuple[int, bytes]] | None:
    """The last block and hash of each month that this node's log let go; None where there is no log."""
    if not (settings.node.data_dir / DATABASE).exists():
        return None
    store = Store.open(settings.node.data_dir, keeps_names=settings.audit.keeps_names)
    try:
        with store.database.read() as tx:
            return {(each.block, each.hash) for each in expire.gone(tx)}
    finally:
        store.close()


def _over(store: Store, days: int) -> list[Month]:
    if not days:
        return []
    seal_all(store.database, store.clock)
    with store.database.read() as tx:
        return expire.over(tx, store.clock.now(), days)


def _waits(store: Store, settings: Settings, month: Month) -> str:
    """Why a month can't go yet; empty where it can."""
    place = anchors_of(settings).folder
    try:
        anchor = anchors.newest(place)
    except Unavailable as e:
        return str(e)
    if anchor is None or anchor.block < month.block:
        known = f"ends at block {anchor.block}" if anchor else "is empty"
        return f"the month's last block is {month.block}, and the anchor in {place} {known}"
    with store.database.read() as tx:
        stands = agreement.standing(driver(tx), anchor)
        if stands != "agrees":
            return "the newest anchor and the log do not agree: see `hilum audit verify`"
        if (repository := settings.audit.repository) is not None:
            from node.atna.condition import taker

            if forwarded.position(tx, taker(repository)) < month.last_id:
                return f"the audit repository {repository.host} has not got all of it yet"
    return ""


def _files(store: Store, days: int, over: Callable[[Connection, datetime], dict[str, Over]]) -> Files:
    if not days:
        return Files(0)
    with store.database.read() as tx:
        found = over(tx, store.clock.now() - timedelta(days=days))
    stay = {why: found[why].count for why in WHY if why in found}
    return Files(days, found.get("", NONE), stay)


def _next(store: Store, days: int) -> tuple[str, str] | None:
    """The month that goes after those that are over, and on which day."""
    if not days:
        return None
    with store.database.read() as tx:
        month = expire.next_month(tx, store.clock.now(), days)
    return (month, f"{_month_after(month) + timedelta(days=days):%Y-%m-%d}") if month else None


def _month_after(month: str) -> datetime:
    first = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    return (first + timedelta(days=31)).replace(day=1)


def _kept_for(days: int) -> str:
    return f"{days} days" if days else "ever"


def _files_json(files: Files) -> dict[str, Any]:
    return {
        "days": files.days,
        "go": files.go.count,
        "bytes": files.go.size,
        "oldest": files.go.oldest or None,
        "stay": dict(files.stay),
    }
