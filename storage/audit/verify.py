"""Does the log stand as it was written? Every record against its hash, every block against its chain and its seal.

Reads stored bytes with a cursor of its own, some 50,000 records to a read transaction, so that the sealer goes on
meanwhile. What is found is told in sentences; it goes on after each, and every block is judged by what its neighbours
say in their seals, so that one forgery is one finding.

What no log can find by itself is in `storage.audit.agreement`: an old copy put back, an end cut off, all seals made
anew. And nobody can tell a record that somebody appended from one that the node appended: it is sealed like any other,
with the time of its sealing, and never gets into the past.
"""

import json
import re
import sqlite3
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from typing import Any

from storage.audit.expire import unfinished
from storage.audit.index import term
from storage.audit.seal import NONE, Seal, block_hash
from storage.database import BUSY_SECONDS
from storage.errors import Unavailable

PAGE_BLOCKS = 2_000
PAGE_RECORDS = 50_000
MOST_FINDINGS = 100
GUARDS = (
    "audit_no_update", "audit_no_delete", "audit_seal_no_update", "audit_seal_no_delete", "audit_expiry_no_update",
    "audit_expiry_no_delete", "audit_identity_erase_only",
)  # fmt: skip
"""The triggers that refuse what nobody may do."""

_SEALS = (
    "SELECT block, time, first_id, last_id, earliest, latest, stepped, hash FROM audit_seal "
    "WHERE block > ? AND block <= ? ORDER BY block LIMIT ?"
)
_RECORDS = "SELECT id, payload, hash FROM audit WHERE id > ? AND id <= ? ORDER BY id"
_EXPIRY = "SELECT block, time, last_id, hash FROM audit_expiry ORDER BY last_id DESC LIMIT 1"

_Row = tuple[int, Any, Any]


@dataclass
class Findings:
    """Sentences, the first MOST_FINDINGS of them; the others are counted."""

    told: list[str] = field(default_factory=list)
    more: int = 0

    def add(self, sentence: str) -> None:
        if len(self.told) < MOST_FINDINGS:
            self.told.append(sentence)
        else:
            self.more += 1

    @property
    def count(self) -> int:
        return len(self.told) + self.more


@dataclass
class Checked:
    """What was looked at. `earliest`, `latest`: times of records (stamps; empty where there is none)."""

    # sealed, and their blocks
    records: int = 0
    blocks: int = 0
    earliest: str = ""
    latest: str = ""
    # younger than the last seal: how many, first and last id
    unsealed: int = 0
    first_unsealed: int = 0
    last_unsealed: int = 0
    # blocks with records that are earlier than those before: the clock was put back
    stepped: int = 0


@contextmanager
def opened(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection that can only read. Raises Unavailable, also where the file is damaged."""
    try:
        connection = sqlite3.connect(
            f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=BUSY_SECONDS
        )
        try:
            connection.execute("PRAGMA trusted_schema=OFF")
            yield connection
        finally:
            connection.close()
    except sqlite3.DatabaseError as e:
        raise Unavailable(f"the database can't be read: {e}; see `hilum check`") from e


def verify(connection: sqlite3.Connection, findings: Findings) -> Checked:
    """Checks records, blocks and their chain. `connection` is in autocommit mode. Raises sqlite3.DatabaseError."""
    # what is no UTF-8 was not written by us, and must not end the reading
    connection.text_factory = lambda text: text.decode("utf-8", "replace")
    log = _Log(connection, findings)
    log.begin()
    while log.page():
        pass
    log.end()
    return log.checked


class _Log:
    """The log, read once from its first block to its end. `_before` is the block before the next one."""

    def __init__(self, connection: sqlite3.Connection, findings: Findings) -> None:
        self.checked = Checked()
        self._connection = connection
        self._findings = findings
        self._before = NONE
        # the last seal that was read, sound or not
        self._read = 0
        # how far the log went when this began: the last block, the last record
        self._head = 0
        self._newest = 0
        self._expired = NONE

    def begin(self) -> None:
        """What stands there, before the first block is read; where the log begins after an expiry."""
        one = self._one
        with self._snapshot():
            guards = {
                name
                for (name,) in self._connection.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'trigger'"
                )
            }
            self._follow_expiry()
            start = self._before
            self._head = max(one("SELECT max(block) FROM audit_seal") or 0, start.block)
            self._newest = max(one("SELECT max(id) FROM audit") or 0, start.last_id)
            counted = one("SELECT seq FROM sqlite_sequence WHERE name = 'audit'") or 0
            early = self._early(start)
        self._expired = start
        for name in GUARDS:
            if name not in guards:
                self._findings.add(
                    f"the database's guard {name} is gone: somebody removed it, and the log could be rewritten"
                )
        for sentence in early:
            self._findings.add(sentence)
        if type(counted) is not int:
            self._findings.add("the database's count of records is unreadable: it was changed")
        elif counted > self._newest:
            self._findings.add(
                f"{_missing(self._newest + 1, counted)}: the database has numbered them, "
                "and the end of the log was cut off"
            )
        elif counted < self._newest:
            self._findings.add(
                f"not written by the node: {_records(counted + 1, self._newest)}; the database has "
                f"numbered only {counted}"
            )

    def _early(self, start: Seal) -> list[str]:
        """What stands before the log's first record and should not. Months that are being let go are still there,
        block by block, and hold what their seals say (`storage.audit.expire`)."""
        found = []
        count, first, last = self._connection.execute(
            "SELECT count(*), min(id), max(id) FROM audit WHERE id <= ?", (start.last_id,)
        ).fetchone()
        strange = self._one(
            "SELECT count(*) FROM audit_seal WHERE block <= ? AND (block <= 0 OR last_id > ?)",
            start.block,
            start.last_id,
        )
        if count and (first <= 0 or not unfinished(self._connection)):
            found.append(
                f"{_records(first, last)} should not be there: the log begins with record {start.last_id + 1}; "
                f"inserted before it: {count}"
            )
        if strange:
            found.append(
                f"seals inserted before block {start.block + 1}, with which the log begins: {strange}"
            )
        return found

    def page(self) -> bool:
        """The next blocks; False where there are no more."""
        with self._snapshot():
            self._follow_expiry()
            since = max(self._read, self._before.block)
            listed = self._connection.execute(_SEALS, (since, self._head, PAGE_BLOCKS)).fetchall()
            seals = [seal for row in listed if (seal := _seal(row)) is not None]
            seals = seals[: self._most(seals)]
            self._judge(seals)
            if listed:
                self._read = seals[-1].block if seals else listed[-1][0]
        return bool(listed)

    def _most(self, seals: Sequence[Seal]) -> int:
        """How many blocks have some PAGE_RECORDS records; at least one."""
        limit = self._before.last_id + PAGE_RECORDS
        return next((n for n, seal in enumerate(seals) if seal.last_id > limit), len(seals)) or 1

    def _judge(self, seals: Sequence[Seal]) -> None:
        """Judges these blocks, whose records are read at once."""
        last = max((seal.last_id for seal in seals), default=0)
        rows: list[_Row] = self._connection.execute(_RECORDS, (self._before.last_id, last)).fetchall()
        at = 0
        for seal in seals:
            end = at + max(0, seal.last_id - self._before.last_id)
            # so many where none is missing, and none too many
            if end > len(rows) or (end and rows[end - 1][0] != seal.last_id):
                end = bisect_right(rows, seal.last_id, at, key=itemgetter(0))
            self._block(seal, rows[at:end])
            at = end

    def end(self) -> None:
        """What is younger than the last seal."""
        if self._before.block < self._head:
            self._findings.add(
                f"unreadable: {_blocks(self._before.block + 1, self._head)}; what was sealed after record "
                f"{self._before.last_id} is not to be trusted"
            )
        expected, last = self._before.last_id, self._before.last_id
        told_of_expiry = False
        while last < self._newest:
            high = min(last + PAGE_RECORDS, self._newest)
            rows: list[_Row] = self._connection.execute(_RECORDS, (last, high)).fetchall()
            for first, until in _gaps(rows, expected + 1, high):
                self._findings.add(f"{_missing(first, until)}: removed before they were sealed")
            self._changed(rows)
            told_of_expiry = told_of_expiry or any(_tells_expiry(row[1], self._expired) for row in rows)
            if rows and not self.checked.unsealed:
                self.checked.first_unsealed = rows[0][0]
            self.checked.unsealed += len(rows)
            self.checked.last_unsealed = rows[-1][0] if rows else self.checked.last_unsealed
            last = expected = high
        if self._expired.block and not (told_of_expiry or self._expiry_is_recorded()):
            self._findings.add(
                f"the log was let go up to record {self._expired.last_id} (block {self._expired.block}) without a "
                "record audit.expired: nobody did that by `hilum`"
            )

    def _block(self, seal: Seal, rows: Sequence[_Row]) -> None:
        """Judges one block by the records up to its last, and goes on behind it."""
        before, findings = self._before, self._findings.count
        linked = seal.block == before.block + 1
        if linked:
            self._placed(seal, rows)
        else:
            sealed = _records(before.last_id + 1, max(before.last_id + 1, seal.first_id - 1))
            self._findings.add(
                f"missing or unreadable: {_blocks(before.block + 1, seal.block - 1)}; the seal of {sealed}"
                f"{_between(before.latest, seal.earliest)} was removed"
            )
        self._changed(rows, seal)
        pairs = ((number, digest) for number, _, digest in rows)
        if self._findings.count == findings and not _holds(before.hash, seal, pairs):
            self._findings.add(
                f"{_records(seal.first_id, seal.last_id)} (block {seal.block}{_between(seal.earliest, seal.latest)}): "
                "at least one of them, or their seal, was changed, exchanged or replaced after they were sealed"
            )
        checked = self.checked
        checked.records += len(rows)
        checked.blocks += 1
        checked.stepped += bool(seal.stepped)
        checked.earliest = min(checked.earliest or seal.earliest, seal.earliest)
        checked.latest = max(checked.latest, seal.latest)
        # ids that a false seal claims for itself must not hide those of the next
        self._before = (
            seal if seal.last_id > before.last_id else Seal(**{**vars(seal), "last_id": before.last_id})
        )

    def _placed(self, seal: Seal, rows: Sequence[_Row]) -> None:
        """Is each record there that the block should hold, and no other?"""
        first, last = self._before.last_id + 1, seal.last_id
        if seal.first_id == first and len(rows) == last - first + 1 > 0:
            return
        if not seal.first_id <= last or seal.first_id < first:
            self._findings.add(
                f"block {seal.block} claims {_records(seal.first_id, last)}, the one before ends at record "
                f"{first - 1}: its seal was changed"
            )
            return
        for gone, until in _gaps(rows, first, last):
            self._findings.add(
                f"{_missing(gone, until)} (block {seal.block}{_between(seal.earliest, seal.latest)}): removed"
            )
        outside = [row[0] for row in rows if row[0] < seal.first_id]
        for some, until in _runs(outside):
            self._findings.add(
                f"in no block, though later ones are sealed: {_records(some, until)}; inserted, "
                f"or the seal of block {seal.block} was changed"
            )

    def _changed(self, rows: Sequence[_Row], seal: Seal | None = None) -> None:
        """Does each payload have its hash?"""
        try:
            bad = [row for row in rows if sha256(row[1]).digest() != row[2]]
        except TypeError:
            bad = [row for row in rows if type(row[1]) is not bytes or sha256(row[1]).digest() != row[2]]
        if not bad:
            return
        when = {row[0]: _time(row[1]) for row in bad}
        for first, last in _runs([row[0] for row in bad]):
            where = f"block {seal.block}" if seal else "not sealed yet"
            self._findings.add(
                f"{_records(first, last)} ({where}{_between(when[first], when[last])}) "
                f"{'was' if first == last else 'were'} changed after {'it was' if first == last else 'they were'} "
                "written: payload and hash differ"
            )

    def _follow_expiry(self) -> None:
        """Where months are let go meanwhile, goes on behind them."""
        row = self._connection.execute(_EXPIRY).fetchone()
        if row is None:
            return
        block, time, last_id, digest = row
        if not (type(block) is type(last_id) is int and type(digest) is bytes and type(time) is str):
            sentence = "the row that says up to where the log expired is unreadable: it was changed"
            if sentence not in self._findings.told:
                self._findings.add(sentence)
        elif block > self._before.block:
            self._before = Seal(block, time, 0, last_id, "", "", False, digest)

    def _expiry_is_recorded(self) -> bool:
        listed = self._connection.execute(
            "SELECT payload FROM audit_posting JOIN audit ON id = record WHERE term = ? ORDER BY record DESC",
            (term("event", "audit.expired"),),
        )
        return any(_tells_expiry(payload, self._expired) for (payload,) in listed)

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("COMMIT")

    def _one(self, query: str, *values: object) -> Any:
        row = self._connection.execute(query, values).fetchone()
        return row[0] if row else None


def _seal(row: tuple[Any, ...]) -> Seal | None:
    """None where a row is none that a sealer writes."""
    kinds = (int, str, int, int, str, str, int, bytes)
    if tuple(map(type, row)) != kinds or not all(0 < number < 2**63 for number in (row[0], row[2], row[3])):
        return None
    return Seal(*row)


def _holds(previous: bytes, seal: Seal, records: Iterable[tuple[int, bytes]]) -> bool:
    try:
        return block_hash(previous, seal, records) == seal.hash
    except TypeError:
        # a hash that is no bytes
        return False


def _gaps(rows: Sequence[_Row], first: int, last: int) -> Iterator[tuple[int, int]]:
    """Runs of ids from `first` to `last` that are not there; `rows` are in order, within them or before."""
    expected = first
    for number, _, _ in rows:
        if number > expected:
            yield expected, number - 1
        expected = max(expected, number + 1)
    if expected <= last:
        yield expected, last


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as runs: (first, last)."""
    at = 0
    while at < len(numbers):
        end = at
        while end + 1 < len(numbers) and numbers[end + 1] == numbers[end] + 1:
            end += 1
        yield numbers[at], numbers[end]
        at = end + 1


def _tells_expiry(payload: object, expired: Seal) -> bool:
    """Is it the record of that expiry?"""
    if type(payload) is not bytes or b"audit.expired" not in payload:
        return False
    told = _told(payload)
    detail = told.get("detail")
    return (
        told.get("event") == "audit.expired"
        and isinstance(detail, dict)
        and detail.get("last_id") == expired.last_id
    )


def _told(payload: object) -> dict[str, Any]:
    try:
        found = json.loads(payload) if isinstance(payload, bytes | str) else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _time(payload: object) -> str:
    time = _told(payload).get("time", "")
    return time if isinstance(time, str) else ""


def at(stamp: str) -> str:
    """A stamp as a sentence has it: to the second."""
    return f"{stamp[:19]}Z" if re.fullmatch(r"[0-9T:.-]{26}Z", stamp) else "an unknown time"


def _between(first: str, last: str) -> str:
    """ ", of 2026-…Z to 2026-…Z", as far as known."""
    known = [at(stamp) for stamp in (first, last) if stamp]
    return f", {' to '.join(dict.fromkeys(known))}" if known else ""


def runs_told(numbers: Sequence[int]) -> Iterator[str]:
    """Ascending ids of records as a sentence begins: "record 4711", "records 10 to 12"."""
    return (_records(first, last) for first, last in _runs(numbers))


def _missing(first: int, last: int) -> str:
    return f"{_records(first, last)} {'is' if first == last else 'are'} missing"


def _records(first: int, last: int) -> str:
    return f"record {first}" if first == last else f"records {first} to {last}"


def _blocks(first: int, last: int) -> str:
    return f"block {first}" if first == last else f"blocks {first} to {last}"
