"""Are the postings those that the records make? And made again where they are not.

Postings are no evidence, but who removes one hides its record from a question. They are compared with those made
anew from the payloads, which wait in a file of their own: hashes of terms, nothing that names anybody.
"""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from storage.audit.index import postings_of
from storage.audit.records import told_of
from storage.audit.verify import Findings, runs_told
from storage.database import Database

PAGE = 50_000
"""Records or postings read at a time."""
CHUNK = 500
"""Postings repaired in one transaction."""

Posting = tuple[int, int]
"""(term, record)"""


@dataclass
class Difference:
    """How many postings are right, missing, and false."""

    right: int = 0
    missing: int = 0
    false: int = 0

    @property
    def any(self) -> bool:
        return bool(self.missing or self.false)


def compare(connection: sqlite3.Connection, folder: Path, findings: Findings) -> Difference:
    """Compares the postings of all sealed records; `folder`: for a file of some 20 bytes a posting, which is removed.

    `connection` reads, in autocommit mode. Raises sqlite3.DatabaseError, OSError.
    """
    found = Difference()
    hidden: set[int] = set()
    invented: set[int] = set()
    for is_missing, (_, record) in _differences(connection, folder, found):
        found.missing += is_missing
        found.false += not is_missing
        (hidden if is_missing else invented).add(record)
    for records in runs_told(sorted(hidden)):
        findings.add(
            f"{records} can't be found by all that they say: postings were removed; the records themselves are "
            "judged apart (`hilum audit verify --index --repair` makes postings again)"
        )
    for records in runs_told(sorted(invented)):
        findings.add(
            f"{records}: the index lists what they do not say: postings were inserted "
            "(`hilum audit verify --index --repair` makes them again)"
        )
    return found


def repair(database: Database, connection: sqlite3.Connection, folder: Path) -> Difference:
    """Makes the postings what the records say; what it changed. Raises Unavailable, sqlite3.DatabaseError, OSError."""
    found = Difference()
    differences = _differences(connection, folder, found)
    while some := list(islice(differences, CHUNK)):
        with database.write() as tx:
            for is_missing, posting in some:
                if is_missing:
                    tx.exec_driver_sql(
                        "INSERT OR IGNORE INTO audit_posting (term, record) VALUES (?, ?)", posting
                    )
                else:
                    tx.exec_driver_sql("DELETE FROM audit_posting WHERE term = ? AND record = ?", posting)
                found.missing += is_missing
                found.false += not is_missing
    return found


def _differences(
    connection: sqlite3.Connection, folder: Path, found: Difference
) -> Iterator[tuple[bool, Posting]]:
    """(is it missing, the posting) in the order of postings; counts those that are right."""
    first, last = _sealed(connection)
    with _made_anew(connection, folder, first, last) as anew:
        # sorted once, as a whole: in the order of records they would be put into a tree's every page
        right: Iterator[Posting] = anew.execute("SELECT term, record FROM posting ORDER BY term, record")
        there = _postings(connection, first, last)
        wanted, has = next(right, None), next(there, None)
        while wanted is not None or has is not None:
            if wanted == has:
                found.right += 1
                wanted, has = next(right, None), next(there, None)
            elif has is None or (wanted is not None and wanted < has):
                assert wanted is not None
                yield True, wanted
                wanted = next(right, None)
            else:
                yield False, has
                has = next(there, None)


def _sealed(connection: sqlite3.Connection) -> Posting:
    """The first and the last record whose postings are there: neither expired nor unsealed."""
    (gone,) = connection.execute("SELECT coalesce(max(last_id), 0) FROM audit_expiry").fetchone()
    (last,) = connection.execute("SELECT coalesce(max(last_id), 0) FROM audit_seal").fetchone()
    return gone + 1, last


@contextmanager
def _made_anew(
    connection: sqlite3.Connection, folder: Path, first: int, last: int
) -> Iterator[sqlite3.Connection]:
    """A database of its own with the postings as the payloads make them."""
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix="reindex-") as made,
        closing(sqlite3.connect(Path(made) / "postings.db", isolation_level=None)) as anew,
    ):
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", "cache_size=-131072"):
            anew.execute(f"PRAGMA {pragma}")
        anew.execute("CREATE TABLE posting (term, record)")
        while first <= last:
            high = min(first + PAGE - 1, last)
            rows = connection.execute(
                "SELECT id, payload FROM audit WHERE id BETWEEN ? AND ?", (first, high)
            ).fetchall()
            anew.execute("BEGIN")
            listed = postings_of((number, told_of(payload)) for number, payload in rows)
            anew.executemany("INSERT INTO posting VALUES (?, ?)", listed)
            anew.execute("COMMIT")
            first = high + 1
        yield anew


def _postings(connection: sqlite3.Connection, first: int, last: int) -> Iterator[Posting]:
    """In their order, of these records; a short read a page."""
    after: Posting | None = None
    while True:
        where, values = ("(term, record) > (?, ?)", after) if after else ("true", ())
        page: list[Posting] = connection.execute(
            f"SELECT term, record FROM audit_posting WHERE {where} ORDER BY term, record LIMIT {PAGE}", values
        ).fetchall()
        yield from (each for each in page if first <= each[1] <= last)
        if len(page) < PAGE:
            return
        after = page[-1]
