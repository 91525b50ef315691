"""Seals: blocks of records, each chained to the one before, so that nobody can rewrite what happened unseen.

    hash(block n) = SHA-256( "hilum audit 1" | hash(block n-1) | the block's own row | id and hash of each record )

The housekeeper seals what is committed each second, the supervisor at start and stop. Hashing and indexing are done
outside of the transaction; it holds a row and the postings of at most MOST records, some 10 ms.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

from sqlalchemy import Connection, insert, select

from storage.audit.index import postings_of
from storage.audit.records import UNREADABLE, told_of
from storage.clock import Clock, stamp
from storage.database import Database, driver
from storage.prepared import MOST_ROWS
from storage.schema import audit, audit_expiry, audit_posting, audit_seal

MOST = 500
"""Records in a block."""
DOMAIN = b"hilum audit 1\n"
GENESIS = bytes(32)
# the clock may be put back between a record and its sealing
_AHEAD = timedelta(days=1)
_ROW = json.JSONEncoder(separators=(",", ":"))
_LIST = f"INSERT OR IGNORE INTO {audit_posting.name} (term, record) VALUES"


@dataclass(frozen=True)
class Seal:
    """A row of `audit_seal`. Times are stamps."""

    block: int
    time: str
    first_id: int
    last_id: int
    earliest: str
    latest: str
    stepped: bool
    hash: bytes = b""


NONE = Seal(0, "", 0, 0, "", "", False, GENESIS)
"""What comes before the first block."""


def block_hash(previous: bytes, seal: Seal, records: Iterable[tuple[int, bytes]]) -> bytes:
    """The hash of a block of these (id, hash of the payload), in the order of their ids."""
    row = [seal.block, seal.time, seal.first_id, seal.last_id, seal.earliest, seal.latest, int(seal.stepped)]
    digest = hashlib.sha256(DOMAIN + previous + _ROW.encode(row).encode() + b"\n")
    for number, record in records:
        digest.update(number.to_bytes(8, "big") + record)
    return digest.digest()


def head(tx: Connection) -> Seal:
    """The newest block; where all have expired, what the next one continues; NONE in a new log."""
    row = tx.execute(select(audit_seal).order_by(audit_seal.c.block.desc()).limit(1)).first()
    if row is not None:
        return Seal(*row)
    gone = tx.execute(select(audit_expiry).order_by(audit_expiry.c.last_id.desc()).limit(1)).first()
    if gone is None:
        return NONE
    return Seal(gone.block, gone.time, 0, gone.last_id, "", "", False, gone.hash)


def seal_all(database: Database, clock: Clock) -> Seal | None:
    """Seals all that is committed; the newest block, None where nothing was left to seal. Raises Unavailable."""
    made: Seal | None = None
    while (seal := seal_some(database, clock)) is not None:
        made = seal
    return made


def seal_some(database: Database, clock: Clock) -> Seal | None:
    """One block of at most MOST records, which ends where the month does. Raises Unavailable."""
    with database.read() as tx:
        before = head(tx)
        query = select(audit).where(audit.c.id > before.last_id).order_by(audit.c.id).limit(MOST)
        rows = tx.execute(query).all()
    if not rows:
        return None
    now = clock.now()
    told = [told_of(row.payload) for row in rows]
    times = _of_one_month(before.latest, [_time(each, now) for each in told])
    rows, told = rows[: len(times)], told[: len(times)]
    made = Seal(
        block=before.block + 1,
        time=stamp(now),
        first_id=rows[0].id,
        last_id=rows[-1].id,
        earliest=min(times),
        latest=max([*times, before.latest]),
        stepped=min(times) < before.latest,
    )
    made = Seal(**{**vars(made), "hash": block_hash(before.hash, made, ((row.id, row.hash) for row in rows))})
    listed = postings_of(zip((row.id for row in rows), told, strict=True))
    with database.write() as tx:
        newest = head(tx)
        if newest != before:
            # a command has sealed meanwhile
            return newest
        tx.execute(insert(audit_seal), vars(made))
        _list(tx, listed)
    return made


def _list(tx: Connection, postings: Sequence[tuple[int, int]]) -> None:
    """Thousands of rows under the lock, so many a statement: a third of the time that SQLAlchemy takes for them."""
    execute = driver(tx).execute
    for at in range(0, len(postings), MOST_ROWS):
        some = postings[at : at + MOST_ROWS]
        rows = ", ".join(["(?, ?)"] * len(some))
        execute(f"{_LIST} {rows}", [value for posting in some for value in posting])


def _time(told: Mapping[str, Any], now: datetime) -> str:
    """The record's time; that of its sealing where it has none that can be: one forged record must not lead the index
    and the months astray."""
    time: str = told["time"]
    return stamp(now) if told is UNREADABLE or time > stamp(now + _AHEAD) else time


def _of_one_month(latest: str, times: Sequence[str]) -> Sequence[str]:
    """Those times, from the first on, up to which the latest is of one month (UTC): months expire whole."""
    reached = list(accumulate(times, max, initial=latest))[1:]
    return times[: sum(time[:7] == reached[0][:7] for time in reached)]
