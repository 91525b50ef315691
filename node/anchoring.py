"""Anchors in the running node: the first key, a line after each sealing, and what they say of the database at a start.

The folder may be a share of another machine: one that fails or hangs holds up nothing. It is told once in the log,
and in `hilum status` and `hilum check` as long as it lasts; the next anchor covers all before it.
"""

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection, func, select

from node import log
from node.settings import Settings
from storage import clock
from storage.audit import Actor, Filter
from storage.audit.agreement import Standing, head_block, standing
from storage.audit.anchors import Anchor, Anchors, Key, newest
from storage.audit.seal import head
from storage.database import driver
from storage.errors import StorageError, Unavailable
from storage.schema import audit_seal
from storage.store import Store

# how long start, stop and `hilum status` wait for a folder that may hang
PATIENCE_SECONDS = 1.0
# a seal without an anchor is none to speak of before
LATE_SECONDS = 60.0

T = TypeVar("T")


def anchors_of(settings: Settings) -> Anchors:
    return Anchors(settings.node.data_dir, settings.audit.anchor_folder)


def at_start(store: Store, settings: Settings) -> None:
    """Begins the chain of keys at the first start; records and tells what contradicts the newest anchor.

    The node goes on from what the database has: images must not wait. Raises Unavailable where the database does not
    take the record.
    """
    anchors = anchors_of(settings)
    try:
        if not anchors.key_file.exists():
            renew(store, anchors, Actor(), "there was no anchor.key")
        anchor = _patiently(lambda: newest(anchors.folder))
    except Unavailable as e:
        log.get().error("the audit log's anchors can't be read", reason=str(e))
        return
    if anchor is None:
        return
    with store.database.read() as tx:
        found, ends = _standing(tx, anchor), head_block(driver(tx))
    if found in {"ahead", "differs"}:
        log.get().error(
            "the audit log is not what its anchor knows: see `hilum audit verify`", anchor=anchor.block
        )
        with store.database.write() as tx:
            detail = {"block": ends, "anchor": anchor.block, "reason": _contradiction(anchor, found, ends)}
            store.audit.record(tx, "audit.mismatch", outcome="failure", detail=detail)


def at_stop(store: Store, settings: Settings) -> None:
    """Anchors the last seal; where that can't be done the next start does it."""
    try:
        with store.database.read() as tx:
            last = head(tx)
        _patiently(lambda: anchors_of(settings).write(last))
    except Unavailable as e:
        log.get().error("the newest seal has no anchor", reason=str(e))


def renew(store: Store, anchors: Anchors, actor: Actor, reason: str = "") -> Key:
    """A new chain of keys; its first, which remains nowhere. Records audit.rekeyed. Raises Unavailable."""
    first = _patiently(anchors.begin)
    with store.database.write() as tx:
        detail: dict[str, Any] = {"number": first.number} | ({"reason": reason} if reason else {})
        store.audit.record(tx, "audit.rekeyed", actor=actor, detail=detail)
    return first


class Anchoring:
    """The housekeeper's chore: the newest seal goes to the second place."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._anchors = anchors_of(settings)
        self._fails = False

    def run(self) -> None:
        """Says once that it fails, and once that it works again. Raises Unavailable where the database is."""
        with self._store.database.read() as tx:
            last = head(tx)
        try:
            self._anchors.write(last)
        except Unavailable as e:
            if not self._fails:
                log.get().error("the newest seal has no anchor", reason=str(e))
            self._fails = True
            return
        if self._fails:
            log.get().info("seals are anchored again", folder=str(self._anchors.folder))
        self._fails = False


def problems(store: Store, settings: Settings) -> list[str]:
    """Sentences for `hilum status` and `hilum check`; none where all is well. Raises Unavailable."""
    anchors = anchors_of(settings)
    try:
        anchor = _patiently(lambda: newest(anchors.folder))
    except Unavailable as e:
        return [f"the audit log's anchors can't be read: {e}"]
    with store.database.read() as tx:
        found: list[str] = []
        if anchor and (stands := _standing(tx, anchor)) in {"ahead", "differs"}:
            found.append(
                _contradiction(anchor, stands, head_block(driver(tx))) + ": see `hilum audit verify`"
            )
        elif when := _unresolved(tx, store):
            found.append(f"the audit log was not what its anchors knew at {when}: see `hilum audit verify`")
        if late := _late(tx, store, anchor):
            why = (
                ""
                if os.access(anchors.folder, os.W_OK)
                else f", and {anchors.folder} is not there or not writable"
            )
            found.append(f"seals of the audit log since {late} have no anchor{why}: see the node's log")
    return found


def _contradiction(anchor: Anchor, found: Standing, ends: int) -> str:
    if found == "ahead":
        return (
            f"the database is older than the anchor of {anchor.time[:19]}Z: an old copy was put back, or the end of "
            f"the audit log was cut off (the anchor knows block {anchor.block}, the database ends at {ends})"
        )
    return (
        f"block {anchor.block} of the audit log is not the one that was anchored at {anchor.time[:19]}Z: the log was "
        "changed and sealed anew, or an old copy was put back and written on"
    )


def _unresolved(tx: Connection, store: Store) -> str:
    """When a start found a contradiction that no verification has cleared since."""
    found = store.audit.page(tx, Filter(event="audit.mismatch"), limit=1, newest=True)
    if not found:
        return ""
    asked = Filter(event="audit.verified", outcome="success")
    cleared = store.audit.page(tx, asked, limit=1, newest=True)
    return "" if cleared and cleared[0].id > found[0].id else found[0].time[:19] + "Z"


def _late(tx: Connection, store: Store, anchor: Anchor | None) -> str:
    """When the first block was sealed that has had no anchor for long; empty where there is none."""
    since = anchor.block if anchor else 0
    first = tx.execute(select(func.min(audit_seal.c.time)).where(audit_seal.c.block > since)).scalar()
    before = clock.stamp(store.clock.now() - timedelta(seconds=LATE_SECONDS))
    return f"{first[:19]}Z" if first and first < before else ""


def _standing(tx: Connection, anchor: Anchor) -> Standing:
    return standing(driver(tx), anchor)


def _patiently(call: Callable[[], T]) -> T:
    """What it returns or raises; Unavailable where it takes too long. It then ends in a thread of its own."""
    answers: list[T] = []
    errors: list[StorageError] = []

    def run() -> None:
        try:
            answers.append(call())
        except StorageError as e:
            errors.append(e)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    if errors:
        raise errors[0]
    if not answers:
        raise Unavailable(f"the folder of the anchors does not answer within {PATIENCE_SECONDS:.0f} s")
    return answers[0]
