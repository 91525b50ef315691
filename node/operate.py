"""What an operator does to jobs and deliveries: list them, try parked ones again, give them up."""

import os
import pwd
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from node import show
from node.errors import Misuse
from node.wakeup import Room, notify
from storage.audit import Actor
from storage.errors import WrongState
from storage.jobs import Job
from storage.outbox import Delivery
from storage.store import Store

# (uid_t)-1
_NOBODY_LOGGED_IN = 2**32 - 1

Change = Callable[[Connection, int, Actor], None]


class _Row(Protocol):
    @property
    def id(self) -> int: ...


_R = TypeVar("_R", bound=_Row, covariant=True)


class _Listing(Protocol[_R]):
    def __call__(self, tx: Connection, state: str = "", *, after: int = 0) -> Sequence[_R]: ...


def operator() -> Actor:
    """Whoever runs this command, for the audit log: the OS user, as the kernel knows it.

    Neither USER nor LOGNAME counts, which anybody may set. Who became somebody else (sudo, su) is named as who logged
    in, where the system keeps that: "alice as root".
    """
    name, login = _user(os.getuid()), _logged_in()
    return Actor(f"{login} as {name}" if login not in {"", name} else name, socket.gethostname())


def _logged_in() -> str:
    """The user who logged in; empty where the kernel was not told (audit(7), pam_loginuid)."""
    try:
        number = int(Path("/proc/self/loginuid").read_text())
    except (OSError, ValueError):
        return ""
    return "" if number == _NOBODY_LOGGED_IN else _user(number)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"


def list_jobs(store: Store, state: str, *, as_json: bool, zone: tzinfo | None) -> None:
    rows = _all(store, store.jobs.listing, state)
    if as_json:
        show.array(_job(job) for job in rows)
    else:
        show.table(
            ("id", "state", "attempts", "queued", "SOP instance", "reason"),
            (
                (j.id, j.state, j.attempt, show.when(j.created_at, zone), j.sop_instance, j.reason)
                for j in rows
            ),
        )


def list_deliveries(store: Store, state: str, *, as_json: bool, zone: tzinfo | None) -> None:
    rows = _all(store, store.outbox.listing, state)
    if as_json:
        show.array(_delivery(delivery) for delivery in rows)
    else:
        show.table(
            ("id", "state", "destination", "result", "attempts", "made", "SOP instance", "reason"),
            (
                (d.id, d.state, d.destination, d.writer, d.attempt, made, d.sop_instance, d.reason)
                for d in rows
                for made in [show.when(d.created_at, zone)]
            ),
        )


def change_jobs(store: Store, change: Change, told: str, ids: Sequence[int], all_parked: bool) -> bool:
    """Retries or discards jobs; prints a line for each; whether all could be changed. Raises Misuse."""
    chosen = _chosen(store, store.jobs.listing, ids, all_parked)
    return _each(store, "job", "worker", change, told, chosen)


def change_deliveries(store: Store, change: Change, told: str, ids: Sequence[int], all_parked: bool) -> bool:
    """The same for deliveries."""
    chosen = _chosen(store, store.outbox.listing, ids, all_parked)
    return _each(store, "delivery", "deliverer", change, told, chosen)


def _chosen(store: Store, listing: _Listing[_Row], ids: Sequence[int], all_parked: bool) -> Sequence[int]:
    if bool(ids) == all_parked:
        raise Misuse("say which: one or more ids as `list` shows them, or --all-parked")
    return ids or [row.id for row in _all(store, listing, "parked")]


def _each(store: Store, noun: str, room: Room, change: Change, told: str, ids: Sequence[int]) -> bool:
    actor, held = operator(), True
    for row_id in ids:
        try:
            with store.database.write() as tx:
                change(tx, row_id, actor)
            print(f"{noun} {row_id} {told}")
        except WrongState as e:
            print(f"hilum: {e}", file=sys.stderr)
            held = False
    notify(store.spool.root, room)
    return held


def _all(store: Store, listing: _Listing[_R], state: str) -> Iterator[_R]:
    """Every row, a short transaction a page."""
    after = 0
    while True:
        with store.database.read() as tx:
            page = listing(tx, state, after=after)
        yield from page
        if not page:
            return
        after = page[-1].id


def _job(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "state": job.state,
        "reason": job.reason,
        "attempts": job.attempt,
        "failures": job.failures,
        "queued": show.stamp(job.created_at),
        "received": show.stamp(job.received_at),
        "sop_instance_uid": job.sop_instance,
        "sop_class_uid": job.sop_class,
        "study_instance_uid": job.study,
        "revision": job.revision,
        "model": job.model,
    }


def _delivery(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "state": delivery.state,
        "reason": delivery.reason,
        "destination": delivery.destination,
        "result": delivery.writer,
        "attempts": delivery.attempt,
        "made": show.stamp(delivery.created_at),
        "next_attempt": show.stamp(delivery.next_attempt_at) if delivery.state == "waiting" else None,
        "sop_instance_uid": delivery.sop_instance,
        "sop_class_uid": delivery.sop_class,
        "source_sop_instance_uid": delivery.about.sop,
        "study_instance_uid": delivery.about.study,
    }
