"""Whole months of the log are let go: exported, then named in `audit_expiry`, then deleted. No other way leads past
the triggers.

    archive ──► row in audit_expiry + audit.expired ──► records and postings ──► identities ──► seals

Each arrow is a commit; whatever is cut short, `finish` goes on from there. A block never holds records of two months
(`storage.audit.seal`), so a month ends with a block; what a clock that was put back has written counts to the month
that was reached before. A name goes with the last record that carries it, unless its image is still kept.
"""

import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, func, insert, select

from storage.audit.archive import Archived, Month
from storage.audit.erase import scrub
from storage.audit.index import postings_of, sealed_to, term
from storage.audit.log import Audit
from storage.audit.records import told_of
from storage.audit.seal import GENESIS, Seal, block_hash
from storage.clock import Clock, stamp
from storage.database import Database
from storage.schema import audit, audit_expiry, audit_identity, audit_posting, audit_seal, objects

CHUNK = 500
"""Identities looked at in one transaction."""
PAUSE_SECONDS = 0.02
"""Between two blocks that are deleted: others write too."""
_KINDS = {"patient_id": "patient", "patient_name": "name", "accession": "accession"}
_UNPOST = f"DELETE FROM {audit_posting.name} WHERE term = ? AND record = ?"


@dataclass(frozen=True)
class Gone:
    """An expiry: the month, its file and that file's hash, the last record and block that went, and when."""

    month: str
    export: str
    export_hash: str
    last_id: int
    block: int
    hash: bytes
    time: str


def over(tx: Connection, now: datetime, days: int) -> list[Month]:
    """The months that are to go, oldest first: all whose last day is more than `days` days ago; none with 0."""
    if not days:
        return []
    month, low = func.substr(audit_seal.c.latest, 1, 7), _expired_to(tx)
    rows = tx.execute(
        select(
            month,
            func.min(audit_seal.c.block),
            func.max(audit_seal.c.block),
            func.min(audit_seal.c.first_id),
            func.max(audit_seal.c.last_id),
        )
        .where(audit_seal.c.last_id > low, audit_seal.c.latest < stamp(_kept_from(now, days)))
        .group_by(month)
        .order_by(month)
    ).all()
    hashes = {
        row.block: row.hash
        for row in tx.execute(select(audit_seal).where(audit_seal.c.block.in_([each[2] for each in rows])))
    }
    return [
        Month(name, first, last, low_id, high_id, hashes[last]) for name, first, last, low_id, high_id in rows
    ]


def next_month(tx: Connection, now: datetime, days: int) -> str:
    """The first month that is there and stays; empty where there is none."""
    kept = audit_seal.c.latest >= stamp(_kept_from(now, days))
    return (tx.execute(select(func.min(audit_seal.c.latest)).where(kept)).scalar() or "")[:7]


def let_go(database: Database, log: Audit, clock: Clock, month: Month, archived: Archived) -> None:
    """From now on the month is gone; `finish` deletes it. Records audit.expired. Raises Unavailable."""
    with database.write() as tx:
        if _expired_to(tx) >= month.last_id:
            return
        tx.execute(
            insert(audit_expiry).values(
                last_id=month.last_id,
                block=month.block,
                hash=month.hash,
                time=clock.stamp(),
                export=archived.name,
                export_hash=archived.hash,
            )
        )
        detail = {
            "months": [month.name], "first_id": month.first_id, "last_id": month.last_id, "block": month.block,
            "hash": month.hash.hex(), "export": archived.name, "export_hash": archived.hash,
        }  # fmt: skip
        log.record(tx, "audit.expired", detail=detail)


def finish(database: Database, pause: Callable[[float], None] = time.sleep) -> bool:
    """Deletes what has expired and is still there; whether there was anything. Raises Unavailable.

    Block by block, the seal of each staying until the next one's records have gone: what is left can be verified at
    any moment (`unfinished`).
    """
    with database.read() as tx:
        last = _expired_to(tx)
        left = select(audit_seal.c.block, audit_seal.c.last_id).where(audit_seal.c.last_id <= last)
        blocks = tx.execute(left.order_by(audit_seal.c.block)).all()
    if not blocks:
        return False
    for block, last_id in blocks:
        _delete(database, block, last_id)
        pause(PAUSE_SECONDS)
    _forget_names(database)
    scrub(database)
    with database.write() as tx:
        tx.execute(delete(audit_seal).where(audit_seal.c.last_id <= last))
    return True


def unfinished(connection: sqlite3.Connection) -> bool:
    """Is what is left of an expired month just what `finish` leaves on its way, up to the block that the expiry names?

    `connection`: the driver's, within a transaction.
    """
    named = connection.execute(
        "SELECT block, hash FROM audit_expiry ORDER BY last_id DESC LIMIT 1"
    ).fetchone()
    if named is None:
        return False
    left = [
        Seal(*row)
        for row in connection.execute("SELECT * FROM audit_seal WHERE block <= ? ORDER BY block", named[:1])
    ]
    if not left or (left[-1].block, left[-1].hash) != named:
        return False
    before = connection.execute(
        "SELECT hash FROM audit_expiry WHERE block = ?", (left[0].block - 1,)
    ).fetchone()
    previous, last_id = before[0] if before else GENESIS, 0
    for seal in left:
        within = "SELECT id, hash FROM audit WHERE id > ? AND id <= ? ORDER BY id"
        records = connection.execute(within, (last_id, seal.last_id)).fetchall()
        # of the first the records may have gone; then it stands for all before
        if (records or seal is not left[0]) and not _holds(previous, seal, records):
            return False
        previous, last_id = seal.hash, seal.last_id
    return True


def _holds(previous: bytes, seal: Seal, records: list[tuple[int, bytes]]) -> bool:
    try:
        return block_hash(previous, seal, records) == seal.hash
    except (TypeError, ValueError, OverflowError):
        # somebody put down what is no number or no bytes
        return False


def gone(tx: Connection) -> list[Gone]:
    """What has expired, oldest first."""
    rows = tx.execute(select(audit_expiry).order_by(audit_expiry.c.last_id))
    return [
        Gone(_month_of(row.export), row.export, row.export_hash, row.last_id, row.block, row.hash, row.time)
        for row in rows
    ]


def _kept_from(now: datetime, days: int) -> datetime:
    """The first moment of the oldest month that stays."""
    day = (now - timedelta(days=days)).astimezone(UTC)
    return day.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _expired_to(tx: Connection) -> int:
    """The id of the last record that has expired."""
    return tx.execute(select(func.max(audit_expiry.c.last_id))).scalar() or 0


def _month_of(export: str) -> str:
    return export.removeprefix("audit-")[:7]


def _delete(database: Database, block: int, last_id: int) -> None:
    """A block's records with their postings, and the seals before it."""
    with database.read() as tx:
        rows = tx.execute(select(audit.c.id, audit.c.payload).where(audit.c.id <= last_id)).all()
    listed = postings_of((row.id, told_of(row.payload)) for row in rows)
    with database.write() as tx:
        if listed:
            tx.exec_driver_sql(_UNPOST, listed)
        tx.execute(delete(audit).where(audit.c.id <= last_id))
        tx.execute(delete(audit_seal).where(audit_seal.c.block < block))


def _forget_names(database: Database) -> None:
    """Identities that neither a record nor an image that is kept refers to any more."""
    with database.read() as tx:
        # who comes anew has records that are not listed yet
        pictured = _pictured(tx)
    after = ""
    while True:
        with database.read() as tx:
            query = select(audit_identity.c.key, audit_identity.c.kind).where(audit_identity.c.key > after)
            page = tx.execute(query.order_by(audit_identity.c.key).limit(CHUNK)).all()
            listed_as = {row.key: term(_KINDS[row.kind], row.key) for row in page if row.key not in pictured}
            lost = _unlisted(tx, listed_as)
        if lost:
            with database.write() as tx:
                keys = _unlisted(tx, {key: listed_as[key] for key in lost}) - _unsealed(tx)
                tx.execute(delete(audit_identity).where(audit_identity.c.key.in_(keys)))
        if len(page) < CHUNK:
            return
        after = page[-1].key


def _unlisted(tx: Connection, listed_as: Mapping[str, int]) -> set[str]:
    """Those keys under whose terms no record is listed."""
    if not listed_as:
        return set()
    values = ", ".join(f"({each})" for each in listed_as.values())
    found = tx.exec_driver_sql(
        f"WITH wanted(term) AS (VALUES {values}) SELECT term FROM wanted "
        f"WHERE NOT EXISTS (SELECT 1 FROM {audit_posting.name} AS listed WHERE listed.term = wanted.term)"
    )
    unlisted = set(found.scalars())
    return {key for key, each in listed_as.items() if each in unlisted}


def _unsealed(tx: Connection) -> set[str]:
    """The keys in records that no block holds yet."""
    payloads = tx.execute(select(audit.c.payload).where(audit.c.id > sealed_to(tx))).scalars()
    return {told[kind] for told in map(told_of, payloads) for kind in _KINDS.values() if told.get(kind)}


def _pictured(tx: Connection) -> set[str]:
    """The keys of images whose files are kept."""
    columns = (objects.c.patient, objects.c.patient_name, objects.c.accession)
    rows = tx.execute(select(*columns).where(objects.c.file.is_not(None)).distinct())
    return {key for row in rows for key in row if key}
